"""What the reliability tests share: the fixtures of `tests/e2e`, and daemons that start fast."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.checkpoints.test_completeness import sources
from tests.clocks import FakeClock
from tests.e2e.conftest import (
    Collection,
    Daemon,
    collection,
    kill_all,
    results,
    start,
    watch,
    watch_words,
)
from tests.reliability.saving import make_source
from tests.reliability.station import Station

__all__ = ["collection", "results", "sources", "start", "watch"]
ROOT = Path(__file__).parents[2]
Row = dict[str, object]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, so that it can be chosen or left out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("reliability")


class LightDaemon(Daemon):
    """A real daemon whose evaluation process needs no torch."""

    def __init__(self, arguments: list[str], log: Path, *, folder: Path, **settings: str) -> None:
        self._log = log
        self.folder = folder
        """Its output folder."""
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.reliability.light", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": str(ROOT), **settings},
            )

    def workers(self) -> list[int]:
        found = subprocess.run(
            ["pgrep", "-f", f"light_worker [a-z0-9:]+ {self.process.pid}$"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(each) for each in found.stdout.split()]


WatchLightly = Callable[..., LightDaemon]


@pytest.fixture
def watch_lightly(collection: Collection, tmp_path: Path) -> Iterator[WatchLightly]:
    """Starts `asyncval watch` with the light evaluation process, on `training`."""
    daemons: list[LightDaemon] = []

    def run(
        *more: str, training: str = "training", output: str = "validation", **settings: str
    ) -> LightDaemon:
        words = watch_words(collection, tmp_path, *more, training=training, output=output)
        log = tmp_path / f"light-{len(daemons)}.log"
        daemons.append(LightDaemon(words, log, folder=tmp_path / output, **settings))
        return daemons[-1]

    yield run
    kill_all(daemons)


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., list[Row]]:
    """Reads the ledger of an output folder: every row, ascending by step."""

    def read(output: str = "validation") -> list[Row]:
        database = sqlite3.connect(tmp_path / output / "ledger.sqlite")
        database.row_factory = sqlite3.Row
        found = database.execute(
            "SELECT v.*, r.metrics FROM validations v LEFT JOIN results r ON r.validation = v.id "
            "ORDER BY v.step, v.id"
        ).fetchall()
        database.close()
        return [dict(each) for each in found]

    return read


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Whole checkpoints by kind and seed, made when first asked for; not to be changed."""
    folder = tmp_path_factory.mktemp("pool")

    def get(seed: int, kind: str = "huggingface") -> Path:
        path = folder / f"{kind}-{seed}"
        return path if path.exists() else make_source(kind, path, seed=seed)

    return get


@pytest.fixture
def put(pool: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Puts a whole checkpoint into the training folder, its sentinel last."""

    def make(step: int, kind: str = "huggingface", *, seed: int | None = None) -> Path:
        source = pool(step if seed is None else seed, kind)
        target = tmp_path / "training" / f"checkpoint-{step}"
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
        (target / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        return target

    return make


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def station(tmp_path: Path, clock: FakeClock) -> Iterator[Callable[..., Station]]:
    """Opens a daemon in this process on this test's folder; again, for a restart."""
    opened: list[Station] = []

    def call(folder: Path = tmp_path, **options: object) -> Station:
        given: dict[str, object] = {"clock": clock} | options
        made: Callable[..., Station] = Station
        opened.append(made(folder, **given))
        return opened[-1]

    yield call
    for each in opened:
        each.ledger.close()
