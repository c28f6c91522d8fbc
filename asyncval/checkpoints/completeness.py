"""Is a folder a whole checkpoint? Decided from one listing, before anything is loaded.

Trainers write checkpoints in place, file by file, without a word when they are done. Hugging
Face's writes `trainer_state.json` last, so a folder whose model files are all whole and not
newer than it is complete at once. Without it, a whole structure must also have been quiet.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from asyncval.checkpoints import metadata
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.recognition import AUTO, layout_of
from asyncval.checkpoints.structure import check_file
from asyncval.core.errors import CheckpointIncomplete

SENTINEL = "trainer_state.json"
SHARD = re.compile(r"-\d{5}-of-\d{5}|__\d+_\d+(?=\.distcp)")
UNFINISHED = "checkpoint-is-incomplete.txt"
TEMPORARY = re.compile(r"\.tmp.*|\.~.*|\.metadata\.tmp|.*\.incomplete")
STALE_FACTOR = 12
"""How many times longer a folder must be quiet where something says that it is not whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeFolder:
    """A folder whose structure is whole.

    `quiet_factor` times the settling time it must have been unchanged; 0 where the trainer's
    own last file says that it is complete. One that `is_doubtful` is taken with its reason.
    """

    layout: str
    model_files: tuple[str, ...]
    quiet_factor: int
    reason: str

    @property
    def is_doubtful(self) -> bool:
        """Say whether it may be a mixture of two saves, or what is left of one."""
        return self.quiet_factor == STALE_FACTOR


def examine(
    folder: Folder,
    *,
    step: int | None,
    sentinel_name: str = SENTINEL,
    inventory: frozenset[str] = frozenset(),
    layout_name: str = AUTO,
) -> WholeFolder:
    """Check a folder's structure and say what decides about its completeness.

    Args:
        folder: The listing.
        step: The step that its name tells, None where it tells none.
        sentinel_name: The file that the trainer writes last.
        inventory: The model files of an earlier checkpoint of the same run, as `inventory_of`
            gives them: one that has no less is not being deleted, one that has less may be.
        layout_name: The layout that it is said to have.

    Raises:
        CheckpointIncomplete: It is not whole (yet).
        CheckpointUnsupported: It is whole, but nothing that we can evaluate.
    """
    if UNFINISHED in folder:
        raise CheckpointIncomplete(f"{UNFINISHED} says that it is being written.")
    layout = layout_of(folder, layout_name)
    names = tuple(sorted(layout.model_files(folder)))
    for name in names:
        check_file(folder.path / name)
    last = sentinel_name
    if last == SENTINEL and last not in folder:
        last = _commit_marker(folder, names) or last
    factor, reason = _last_file(folder, names, step, last)
    lacking = inventory - inventory_of(names)
    if _is_rewritten(folder, names):
        factor, reason = STALE_FACTOR, "A shard is newer than its .metadata: it may be rewritten."
    elif lacking or not inventory:
        factor, reason = _calm(folder, last, factor, reason)
        if factor and lacking:
            factor = STALE_FACTOR
            reason = (
                f"It lacks {min(lacking)}, which the checkpoint before it has: it may be going."
            )
    return WholeFolder(layout=layout.name, model_files=names, quiet_factor=factor, reason=reason)


def inventory_of(names: Sequence[str]) -> frozenset[str]:
    """Return the names of model files, shards as one."""
    return frozenset(SHARD.sub("-*", name) for name in names)


def is_finished(folder: Folder, sentinel_name: str) -> bool:
    """Say whether the trainer wrote its last file, whole, and nothing after it."""
    sentinel = folder.files.get(sentinel_name)
    if sentinel is None or UNFINISHED in folder:
        return False
    if any(stat.mtime_ns > sentinel.mtime_ns for stat in folder.files.values()):
        return False  # it is being written over
    if sentinel_name != SENTINEL:
        return True
    try:
        return isinstance(folder.read_json(SENTINEL), dict)
    except CheckpointIncomplete:
        return False


def _calm(folder: Folder, last: str, factor: int, reason: str) -> tuple[int, str]:
    """Look for signs that a complete folder is being deleted: entries that went after the end.

    A save ends with its last file, so no folder can be newer than it, unless something was
    added, as other ranks may, or removed.
    """
    if factor == 0 and max(folder.folders.values()) > folder.files[last].mtime_ns:
        return 1, f"Files were added or removed after {last}: it may be going."
    return factor, reason


def _commit_marker(folder: Folder, names: Sequence[str]) -> str:
    """Return the `.metadata` that was renamed into place after all other files, if one was."""
    written = max(stat.mtime_ns for stat in folder.files.values())
    markers = [name for name in names if name.endswith(metadata.NAME)]
    return next((name for name in markers if folder.files[name].mtime_ns == written), "")


def _is_rewritten(folder: Folder, names: Sequence[str]) -> bool:
    """Say whether a distributed checkpoint has shards that its `.metadata` is too old for."""
    return any(
        folder.files[name].mtime_ns > folder.files[marker].mtime_ns
        for marker in names
        if marker.endswith(metadata.NAME)
        for name in names
        if name.endswith(".distcp")
    )


def _last_file(
    folder: Folder, names: Sequence[str], step: int | None, last: str
) -> tuple[int, str]:
    """Say what the file that is written last tells, or that it is not there."""
    written = max(folder.files[name].mtime_ns for name in names)
    sentinel = folder.files.get(last)
    unfinished = [
        name
        for name, stat in folder.files.items()
        if TEMPORARY.fullmatch(name.rpartition("/")[2])
        and (sentinel is None or stat.mtime_ns > sentinel.mtime_ns)
    ]
    if unfinished:
        raise CheckpointIncomplete(f"{unfinished[0]} says that it is being written.")
    if sentinel is None:
        return 1, f"There is no {last}, so it must have been quiet for a while."
    if last == SENTINEL:
        trainer_state = folder.read_json(SENTINEL)
        recorded = trainer_state.get("global_step") if isinstance(trainer_state, dict) else None
        if step is not None and recorded != step:
            return 1, f"{SENTINEL} is of step {recorded}, so it must have been quiet for a while."
    if written > sentinel.mtime_ns:
        return STALE_FACTOR, f"A model file is newer than {last}: it may be written again."
    return 0, f"{last} is there, and no model file is newer."
