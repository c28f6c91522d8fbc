"""`asyncval explain`: whether a folder is a whole checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path

from asyncval.checkpoints.explanation import explain_folder
from asyncval.config import ExplainConfig
from asyncval.core.discovery import CHECKPOINT_NAME, compile_pattern
from asyncval.core.errors import InvalidOption


def explain(config: ExplainConfig) -> int:
    """Say of each folder whether it is a checkpoint, and which rule decided."""
    _check(config.paths)
    options = config.encoder_options()
    pattern = compile_pattern(config.ckpt_pattern) if config.ckpt_pattern else CHECKPOINT_NAME
    reports = [
        explain_folder(path, sentinel=config.sentinel, options=options, pattern=pattern)
        for path in config.paths
    ]
    if config.json:
        print(json.dumps(reports, indent=2))
        return 0
    for report in reports:
        for key, value in report.items():
            if value is None:
                continue
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"{key + ':':<16}{shown}")
        print()
    return 0


def _check(paths: Sequence[Path]) -> None:
    if not paths:
        raise InvalidOption("PATH: give a checkpoint.")
    for path in paths:
        if path.is_file():
            raise InvalidOption(f"PATH: {str(path)!r} is a file: give the checkpoint's folder.")
        if not path.is_dir():
            raise InvalidOption(f"PATH: there is no folder {str(path)!r}.")
