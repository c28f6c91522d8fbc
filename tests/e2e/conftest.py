"""Real commands on real files: a tiny model, a tiny collection, and processes to run them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.models import WORDS, save_huggingface

PATIENCE_SECONDS = 60.0


@dataclass
class Collection:
    """Forty passages, ten queries, one relevant passage for each."""

    folder: Path
    queries: Path = field(init=False)
    corpus: Path = field(init=False)
    qrels: Path = field(init=False)

    def __post_init__(self) -> None:
        self.queries = self.folder / "queries.jsonl"
        self.corpus = self.folder / "corpus"
        self.qrels = self.folder / "qrels.tsv"
        self.corpus.mkdir(parents=True)
        draw = random.Random(1)
        texts = [" ".join(draw.choices(WORDS, k=9)) for _ in range(40)]
        (self.corpus / "split00.jsonl").write_text(
            "".join(
                json.dumps({"text_id": f"p{i}", "text": text}) + "\n"
                for i, text in enumerate(texts)
            )
        )
        self.queries.write_text(
            "".join(
                json.dumps({"text_id": f"q{i}", "text": " ".join(texts[i].split()[:4])}) + "\n"
                for i in range(10)
            )
        )
        self.qrels.write_text("".join(f"q{i}\t0\tp{i}\t1\n" for i in range(10)))

    def flags(self) -> list[str]:
        """The data flags of every command."""
        return [
            "--query_file", str(self.queries),
            "--candidate_dir", str(self.corpus),
            "--qrel_file", str(self.qrels),
        ]  # fmt: skip


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path / "data")


SaveCheckpoint = Callable[..., Path]


@pytest.fixture
def save_checkpoint(tmp_path: Path) -> SaveCheckpoint:
    """Writes `checkpoint-STEP` as a trainer does: other weights each, its state file last."""

    def save(step: int, *, folder: Path = tmp_path / "training", sentinel: bool = True) -> Path:
        place = save_huggingface(folder / f"checkpoint-{step}", seed=step)
        if sentinel:
            (place / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        return place

    return save


class Daemon:
    """One running command, its output in a file, killed when the test is over."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "asyncval", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, *, times: int = 1) -> None:
        """Wait until its log has a text so often."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.log.count(text) < times:
            assert self.process.poll() is None, f"It ended before it said {text!r}:\n{self.log}"
            assert time.monotonic() < deadline, f"It never said {text!r}:\n{self.log}"
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """The process numbers of its evaluation processes."""
        found = subprocess.run(
            ["pgrep", "-f", f"asyncval.worker [a-z0-9:]+ {self.process.pid}$"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(each) for each in found.stdout.split()]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE_SECONDS)

    def exit_code(self) -> int:
        """Wait for its own end."""
        return self.process.wait(timeout=PATIENCE_SECONDS)


StartDaemon = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartDaemon]:
    """Starts commands in the background."""
    daemons: list[Daemon] = []

    def run(*arguments: str) -> Daemon:
        daemons.append(Daemon(list(arguments), tmp_path / f"log-{len(daemons)}.txt"))
        return daemons[-1]

    yield run
    kill_all(daemons)


def kill_all(daemons: Sequence[Daemon]) -> None:
    """Leave none of them running."""
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


def watch_words(
    collection: Collection,
    folder: Path,
    *more: str,
    training: str = "training",
    output: str = "validation",
) -> list[str]:
    """Return the command line of `asyncval watch` with everything below a folder."""
    return [
        "watch", *collection.flags(),
        "--ckpts_dir", str(folder / training),
        "--output_dir", str(folder / output),
        "--cache_dir", str(folder / "cache"),
        "--devices", "cpu",
        "--settle", "0.5",
        *more,
    ]  # fmt: skip


@pytest.fixture
def watch(start: StartDaemon, collection: Collection, tmp_path: Path) -> Callable[..., Daemon]:
    """Starts `asyncval watch` on the tiny collection."""

    def run(*more: str) -> Daemon:
        return start(*watch_words(collection, tmp_path, *more))

    return run


def asyncval(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "asyncval", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        cwd=cwd,
    )


@pytest.fixture
def results(tmp_path: Path) -> Callable[[], list[dict[str, object]]]:
    """Reads what `asyncval results --json` prints."""

    def read() -> list[dict[str, object]]:
        done = asyncval("results", "--output_dir", str(tmp_path / "validation"), "--json")
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, object]] = json.loads(done.stdout)
        return rows

    return read
