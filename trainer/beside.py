"""`train --asyncval FILE.yaml`: `asyncval watch` beside the training, as a process of its own.

It is started before the training and ended with it: after the last checkpoint is validated, or
at once when the training fails. `python -m trainer.beside PID ...` is how it is started: it
ends when the process PID does, in whatever way.
"""

import ctypes
import logging
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from trainer.errors import InputError

logger = logging.getLogger("trainer")
READY = " Watching "
"""What is in the daemon's log once it has read its data and found nothing wrong."""
LOOK_SECONDS = 0.1
STOP_SECONDS = 30.0
PR_SET_PDEATHSIG = 1


@contextmanager
def validation_beside(config_file: str | None, *, training_dir: Path) -> Iterator[None]:
    """Validate the checkpoints in a folder while the block runs, and then what is left of them.

    Args:
        config_file: The options of `asyncval watch`; None starts nothing. Its `ckpts_dir` is
            `training_dir`, and its `output_dir` by default `training_dir` with `-validation`.
        training_dir: Where the training puts its checkpoints.

    Raises:
        InputError: Asyncval refuses what is in the file; it is raised before the block runs.
    """
    if config_file is None or os.environ.get("RANK", "0") != "0":
        yield
        return
    output_dir = output_dir_of(Path(config_file), training_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    done_file, log = output_dir / "training.done", output_dir / "asyncval.log"
    done_file.unlink(missing_ok=True)
    process = start(
        ["watch", "--config", config_file, "--ckpts_dir", str(training_dir),
         "--output_dir", str(output_dir), "--done_file", str(done_file)],
        log=log,
    )  # fmt: skip
    try:
        wait_until_ready(process, config_file, log)
        logger.info("Asyncval watches %s; its log is %s.", training_dir, log)
        yield
        done_file.touch()
        logger.info("The training is over; Asyncval finishes its work.")
        process.wait()
    finally:
        stop(process)
    if process.returncode:
        logger.warning("Asyncval ended with code %d. See %s.", process.returncode, log)
    logger.info("asyncval results --output_dir %s shows what it found.", output_dir)


def output_dir_of(config_file: Path, training_dir: Path) -> Path:
    """Return where results go, by the file or by default."""
    try:
        options = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"--asyncval {str(config_file)!r} cannot be read: {error.strerror}. It should have "
            "the options of `asyncval watch`, at least query_file, candidate_dir and qrel_file."
        ) from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--asyncval: {str(config_file)!r} is not valid YAML: {reason}."
        ) from error
    options = options if isinstance(options, dict) else {}
    return Path(options.get("output_dir") or f"{str(training_dir).rstrip('/')}-validation")


def start(command: list[str], *, log: Path) -> "subprocess.Popen[bytes]":
    """Start an `asyncval` command that ends with this process."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "trainer.beside", str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def wait_until_ready(process: "subprocess.Popen[bytes]", config_file: str, log: Path) -> None:
    """Wait until the daemon has read its data; if it ends instead, say why."""
    while READY not in log.read_text(encoding="utf-8", errors="replace"):
        try:
            code = process.wait(timeout=LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        if not last.startswith("asyncval"):  # the parser's box, or a bug's traceback
            last = f"Asyncval ended with code {code}; {str(log)!r} says why."
        raise InputError(f"--asyncval {config_file!r}: {last}")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End the daemon if it still runs; what it has not validated it does the next time."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Run an `asyncval` command that gets SIGTERM when its parent ends."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before we asked
        return
    sys.argv = ["asyncval", *command]
    runpy.run_module("asyncval", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
