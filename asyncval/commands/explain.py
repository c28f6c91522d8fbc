"""`asyncval explain`: whether a folder is a whole checkpoint."""

import json

from asyncval.checkpoints.explanation import explain_folder
from asyncval.config import ExplainConfig


def explain(config: ExplainConfig) -> int:
    """Say of each folder whether it is a checkpoint, and which rule decided."""
    options = config.encoder_options()
    reports = [
        explain_folder(path, sentinel=config.sentinel, options=options) for path in config.paths
    ]
    if config.json:
        print(json.dumps(reports, indent=2))
        return 0
    for report in reports:
        for key, value in report.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"{key + ':':<16}{shown}")
        print()
    return 0
