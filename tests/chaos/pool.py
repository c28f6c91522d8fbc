"""The checkpoints that writers save, and what an undisturbed evaluation of each gives."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder, fingerprint
from tests.chaos.schedules import SOURCES
from tests.reliability.light_worker import metrics_of
from tests.reliability.saving import KINDS

ROOT = Path(__file__).parents[2]
Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A whole checkpoint; `real` is empty where nothing real is to be evaluated."""

    path: Path
    fingerprint: str
    light: Metrics
    real: Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All of them, by kind, and the flags that name the data."""

    sources: Mapping[str, tuple[Source, ...]]
    flags: tuple[str, ...]
    cache: Path


def make_pool(folder: Path, *, real: bool) -> Pool:
    """Save all sources and evaluate each, with the real encoder only if that is wanted."""
    from tests.e2e.conftest import Collection
    from tests.reliability.saving import make_source

    flags = tuple(Collection(folder / "data").flags())
    paths = {
        kind: [make_source(kind, folder / f"{kind}-{i}", seed=i + 1) for i in range(SOURCES)]
        for kind in KINDS
    }
    every = [path for group in paths.values() for path in group]
    cache = folder / "cache"
    measured = _evaluate(every, flags, cache) if real else {}
    sources = {
        kind: tuple(_source(path, measured.get(path.name, {})) for path in group)
        for kind, group in paths.items()
    }
    return Pool(sources=sources, flags=flags, cache=cache)


def _source(path: Path, real: Metrics) -> Source:
    digest = fingerprint(path, examine(Folder.listing(path), step=None).model_files)
    return Source(path=path, fingerprint=digest, light=metrics_of(digest), real=real)


def _evaluate(paths: list[Path], flags: tuple[str, ...], cache: Path) -> dict[str, Metrics]:
    words = ["eval", *map(str, paths), *flags, "--devices", "cpu", "--cache_dir", str(cache)]
    done = subprocess.run(
        [sys.executable, "-m", "asyncval", *words, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {row["checkpoint"]: row["metrics"] for row in json.loads(done.stdout)}
