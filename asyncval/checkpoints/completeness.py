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
SHARD = re.compile(r"-\d{5}-of-\d{5}")
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
            gives them: one that has no less is not being deleted.
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
    factor, reason = _sentinel(folder, names, step, sentinel_name)
    if _is_rewritten(folder, names):
        factor, reason = STALE_FACTOR, "A shard is newer than its .metadata: it may be rewritten."
    if factor == 0 and not (inventory and inventory <= inventory_of(names)):
        factor, reason = _calm(folder, sentinel_name, reason)
    return WholeFolder(layout=layout.name, model_files=names, quiet_factor=factor, reason=reason)


def inventory_of(names: Sequence[str]) -> frozenset[str]:
    """Return the names of model files, shards as one."""
    return frozenset(SHARD.sub("-*-of-*", name) for name in names)


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


def _calm(folder: Folder, sentinel_name: str, reason: str) -> tuple[int, str]:
    """Look for signs that a complete folder is being deleted: entries that went after the end.

    A save ends with its sentinel, so no folder can be newer than it, unless something was
    added, as other ranks may, or removed.
    """
    if max(folder.folders.values()) > folder.files[sentinel_name].mtime_ns:
        return 1, f"Files were added or removed after {sentinel_name}: it may be going."
    return 0, reason


def _is_rewritten(folder: Folder, names: Sequence[str]) -> bool:
    """Say whether a distributed checkpoint has shards that its `.metadata` is too old for."""
    return any(
        folder.files[name].mtime_ns > folder.files[marker].mtime_ns
        for marker in names
        if marker.endswith(metadata.NAME)
        for name in names
        if name.endswith(".distcp")
    )


def _sentinel(
    folder: Folder, names: Sequence[str], step: int | None, sentinel_name: str
) -> tuple[int, str]:
    written = max(folder.files[name].mtime_ns for name in names)
    sentinel = folder.files.get(sentinel_name)
    unfinished = [
        name
        for name, stat in folder.files.items()
        if name.rpartition("/")[2].startswith(TEMPORARY)
        and (sentinel is None or stat.mtime_ns > sentinel.mtime_ns)
    ]
    if unfinished:
        raise CheckpointIncomplete(f"{unfinished[0]} says that it is being written.")
    if sentinel is None:
        return 1, f"There is no {sentinel_name}, so it must have been quiet for a while."
    if sentinel_name == SENTINEL:
        trainer_state = folder.read_json(SENTINEL)
        recorded = trainer_state.get("global_step") if isinstance(trainer_state, dict) else None
        if step is not None and recorded != step:
            return 1, f"{SENTINEL} is of step {recorded}, so it must have been quiet for a while."
    if written > sentinel.mtime_ns:
        return STALE_FACTOR, f"A model file is newer than {sentinel_name}: it may be written again."
    return 0, f"{sentinel_name} is there, and no model file is newer."
