"""Is a folder a whole checkpoint? Decided from one listing, before anything is loaded.

Trainers write checkpoints in place, file by file, without a word when they are done. Hugging
Face's writes `trainer_state.json` last, so a folder whose model files are all whole and not
newer than it is complete at once. Without it, a whole structure must also have been quiet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.recognition import layout_of
from asyncval.checkpoints.structure import check_file
from asyncval.core.errors import CheckpointIncomplete

SENTINEL = "trainer_state.json"
UNFINISHED = "checkpoint-is-incomplete.txt"
TEMPORARY = (".tmp", ".~", ".metadata.tmp")
STALE_FACTOR = 12
"""How many times longer a folder must be quiet whose sentinel is older than its model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeFolder:
    """A folder whose structure is whole.

    `quiet_factor` times the settling time it must have been unchanged; 0 where the trainer's
    own last file says that it is complete.
    """

    layout: str
    model_files: tuple[str, ...]
    quiet_factor: int
    reason: str


def examine(folder: Folder, *, step: int | None) -> WholeFolder:
    """Check a folder's structure and say what decides about its completeness.

    Raises:
        CheckpointIncomplete: It is not whole (yet).
        CheckpointUnsupported: It is whole, but nothing that we can evaluate.
    """
    if UNFINISHED in folder:
        raise CheckpointIncomplete(f"{UNFINISHED} says that it is being written.")
    layout = layout_of(folder)
    names = tuple(sorted(layout.model_files(folder)))
    for name in names:
        check_file(folder.path / name)
    factor, reason = _sentinel(folder, names, step)
    return WholeFolder(layout=layout.name, model_files=names, quiet_factor=factor, reason=reason)


def _sentinel(folder: Folder, names: Sequence[str], step: int | None) -> tuple[int, str]:
    written = max(folder.files[name].mtime_ns for name in names)
    sentinel = folder.files.get(SENTINEL)
    unfinished = [
        name
        for name, stat in folder.files.items()
        if name.rpartition("/")[2].startswith(TEMPORARY)
        and (sentinel is None or stat.mtime_ns > sentinel.mtime_ns)
    ]
    if unfinished:
        raise CheckpointIncomplete(f"{unfinished[0]} says that it is being written.")
    if sentinel is None:
        return 1, f"There is no {SENTINEL}, so it must have been quiet for a while."
    trainer_state = folder.read_json(SENTINEL)
    recorded = trainer_state.get("global_step") if isinstance(trainer_state, dict) else None
    if step is not None and recorded != step:
        return 1, f"{SENTINEL} is of step {recorded}, so it must have been quiet for a while."
    if written > sentinel.mtime_ns:
        return STALE_FACTOR, f"A model file is newer than {SENTINEL}: it may be written again."
    return 0, f"{SENTINEL} is there, and no model file is newer."
