"""`asyncval explain`: what a folder is, what is missing, and which rule decides."""

from dataclasses import fields
from pathlib import Path
from re import Pattern
from typing import Any

from asyncval.checkpoints.bases import digest_of_base
from asyncval.checkpoints.completeness import STALE_FACTOR, examine
from asyncval.checkpoints.description import Description
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.recognition import layout_of
from asyncval.core.discovery import CHECKPOINT_NAME, step_in_name
from asyncval.core.errors import (
    CheckpointBlocked,
    CheckpointBroken,
    CheckpointError,
    CheckpointUnsupported,
)
from asyncval.core.types import EncoderOptions


def explain_folder(
    path: Path,
    *,
    sentinel: str,
    options: EncoderOptions,
    pattern: Pattern[str] = CHECKPOINT_NAME,
) -> dict[str, Any]:
    """Return what is found out about a folder, ready to print; no weights are loaded.

    Args:
        path: The folder.
        sentinel: The file that the trainer writes last.
        options: What flags say of the encoder.
        pattern: Matches the whole name of a checkpoint folder; its last group is the step.
    """
    step = step_in_name(path.name, pattern)
    report: dict[str, Any] = {"path": str(path), "step": step}
    if step is None:
        report["name"] = (
            "It does not tell a step, so `asyncval watch` passes it over (--ckpt_pattern)."
        )
    try:
        folder = Folder.listing(path.absolute())
        layout = layout_of(folder, options.layout)
        report["layout"] = layout.name
        report["model files"] = sorted(layout.model_files(folder))
        report |= explain_encoder(layout.describe(folder, options))
        whole = examine(folder, step=step, sentinel_name=sentinel, layout_name=options.layout)
    except CheckpointBlocked as error:
        return report | {"verdict": "blocked", "reason": str(error), "next look": WHEN_BLOCKED}
    except (CheckpointUnsupported, CheckpointBroken) as error:
        inside = _checkpoints_in(path, pattern) if "layout" not in report else []
        reason = HOLDS_CHECKPOINTS.format(inside[0]) if inside else str(error)
        return report | {"verdict": "refused", "reason": reason}
    except CheckpointError as error:
        report |= {"verdict": "incomplete", "reason": str(error), "next look": WHEN_INCOMPLETE}
        return report
    verdict = "complete" if whole.quiet_factor == 0 else "complete once it has been quiet"
    report |= {"verdict": verdict, "reason": whole.reason}
    if whole.quiet_factor:
        report["next look"] = f"when nothing has changed for {whole.quiet_factor} x --settle"
    return report


def _checkpoints_in(path: Path, pattern: Pattern[str]) -> list[str]:
    folders = (each for each in path.iterdir() if each.is_dir())
    steps = ((step_in_name(each.name, pattern), str(each)) for each in folders)
    return [
        place for _, place in sorted((step, place) for step, place in steps if step is not None)
    ]


def explain_encoder(description: Description) -> dict[str, Any]:
    """Return how a checkpoint turns texts into vectors, each thing with who says it."""
    facts = {
        each.name.replace("_", " "): str(getattr(description, each.name))
        for each in fields(description)
        if each.name not in ("base", "remarks")  # a tower names its base
    }
    if description.base is not None:
        state = digest_of_base(description.base)
        facts["base"] = f"{state} (digest of its config.json and the sizes of its weights)"
    return {**facts, **({"remarks": list(description.remarks)} if description.remarks else {})}


HOLDS_CHECKPOINTS = (
    "It is no checkpoint, but by their names it holds some: give one of them, for example {!r}."
)
WHEN_BLOCKED = "every few seconds, until its files may be read"
WHEN_INCOMPLETE = (
    "when it changes; without a change it is failed after --settle where the trainer's last file "
    f"is there, and broken after {STALE_FACTOR} x --settle where it is not"
)
