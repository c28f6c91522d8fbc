"""One warm process per device on this machine.

A process is started once, holds torch and the tokenised texts, and evaluates one checkpoint
after another. It shares nothing with the daemon but the messages, so its crash is a message
too. It dies with the daemon.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from asyncval.core.errors import (
    DeviceUnavailable,
    InvalidOption,
    UsageError,
    WorkerStopped,
)
from asyncval.core.types import Job
from asyncval.execution.messages import WorkerSetup, job_to_json, setups_to_json

logger = logging.getLogger(__name__)
STOP_SECONDS = 5.0
RESTART_SECONDS = (0.0, 1.0, 10.0, 60.0)
"""How long a device waits for its next process, by how many in a row never got ready."""
MAX_STARTS = 3
"""How often a process is started that somebody kills before it is ready."""
LAST_BYTES = 1 << 14
"""Of a process's log, in which its last words are looked for."""
AUTO = "auto"
DISTRIBUTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Message:
    """What a process said, or, with the kind `stopped`, that it ended."""

    device: str
    kind: str
    values: Mapping[str, Any]


def device_environment(device: str) -> dict[str, str]:
    """Return the environment of a device's process: that device, no network, no training job."""
    kept = {name: value for name, value in os.environ.items() if name not in DISTRIBUTED}
    kept |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "OMP_WAIT_POLICY": "PASSIVE"}
    if device == "cpu":
        kept["CUDA_VISIBLE_DEVICES"] = ""
    elif device != AUTO:
        visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
        index = int(device.removeprefix("cuda:"))
        if visible and index >= len(visible):
            raise DeviceUnavailable(
                f"--devices: {device} is not there: CUDA_VISIBLE_DEVICES has {len(visible)}."
            )
        kept["CUDA_VISIBLE_DEVICES"] = visible[index] if visible else str(index)
    return kept


class LocalExecutor:
    """The processes of all devices.

    Args:
        devices: `cpu`, `cuda:0` and so on, or `auto` for the best there is.
        post: Called from a thread for every message.
        log_folder: Where the standard error of each process goes; None for our own.
    """

    def __init__(
        self,
        devices: Sequence[str],
        *,
        post: Callable[[Message], None],
        log_folder: Path | None = None,
    ) -> None:
        self._post = post
        self._log_folder = log_folder
        self._setups: Mapping[str, WorkerSetup] = {}
        self._log_starts: dict[str, int] = {}
        """By device: how long its log was when its process was started."""
        self._processes = {device: self._spawn(device) for device in devices}
        self._starting: dict[str, float] = {}
        """The devices whose process was started again, and since when, monotonic."""
        self._stopped: set[str] = set()
        self._due: dict[str, float] = {}
        self._num_failures = dict.fromkeys(devices, 0)
        self._busy: dict[str, Job] = {}
        self._labels: dict[str, str] = {}

    def set_up(self, setups: Mapping[str, WorkerSetup]) -> dict[str, Any]:
        """Tell every process what to do, and wait until all can; return what the first said.

        Raises:
            UsageError: One cannot work here: the device or a library is missing.
            WorkerStopped: One ended before it was ready.
        """
        self._setups = setups
        answers = [self._greet(device) for device in self._processes]
        refuse_several_precisions(dict(zip(self._processes, answers, strict=True)))
        for device in self._processes:
            threading.Thread(target=self._read, args=(device,), daemon=True).start()
        return answers[0]

    def _greet(self, device: str) -> dict[str, Any]:
        """Tell a process what to do; one that was killed meanwhile is started again."""
        for _ in range(MAX_STARTS - 1):
            try:
                return self._greet_once(device)
            except WorkerStopped as error:
                if self._processes[device].wait() >= 0:  # it ended by itself, and would again
                    raise
                logger.warning("%s It is started again.", error)
                self._processes[device] = self._spawn(device)
        return self._greet_once(device)

    def _greet_once(self, device: str) -> dict[str, Any]:
        process = self._processes[device]
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{setups_to_json(self._setups)}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerStopped(
                f"The evaluation process of {device} ended while it started "
                f"({_how_it_ended(process.wait())}).{self._last_words(device)}"
            )
        answer: dict[str, Any] = json.loads(line)
        if answer["kind"] == "refused":
            raise UsageError(answer["reason"])
        if device == AUTO:
            self._labels[device] = answer["device"]
        return answer

    def label(self, device: str) -> str:
        """Return what a person calls the device: `auto` is the one that was found."""
        return self._labels.get(device, device)

    @property
    def idle(self) -> list[str]:
        """The devices that wait for a job."""
        away = self._busy.keys() | self._starting.keys() | self._stopped
        return [device for device in self._processes if device not in away]

    @property
    def running(self) -> Mapping[str, Job]:
        """The job of every busy device."""
        return self._busy

    def submit(self, device: str, job: Job) -> None:
        """Give an idle device a job."""
        self._busy[device] = job
        self._send(device, job_to_json(job))

    def _send(self, device: str, line: str) -> None:
        stdin = self._processes[device].stdin
        assert stdin is not None
        try:
            stdin.write(f"{line}\n")
            stdin.flush()
        except BrokenPipeError:
            logger.debug("The process of %s is gone; its reader says so.", device)

    def take_note(self, message: Message) -> Job | None:
        """Update what is running after a message; return the job that it ends, if any.

        `revive` starts a process that stopped again.
        """
        if message.kind == "ready":
            self._starting.pop(message.device, None)
            self._num_failures[message.device] = 0
        if message.kind not in ("done", "failed", "stopped"):
            return None
        if message.kind == "stopped":
            self._num_failures[message.device] += message.device in self._starting
            self._starting.pop(message.device, None)
            self._stopped.add(message.device)
        return self._busy.pop(message.device, None)

    def revive(self, now: float) -> None:
        """Start what stopped again, after a while where that did not help; `now` is monotonic."""
        for device in sorted(self._stopped):
            number = min(self._num_failures[device], len(RESTART_SECONDS) - 1)
            if now >= self._due.setdefault(device, now + RESTART_SECONDS[number]):
                self._restart(device, now)
                del self._due[device]
                self._stopped.discard(device)

    def slow_starters(self, before: float) -> list[str]:
        """Return the devices whose process was started again before a monotonic time."""
        return [device for device, since in self._starting.items() if since < before]

    def kill(self, device: str) -> None:
        """End a process at once; a message says so, and another one is started."""
        if device in self._starting:
            self._starting[device] = inf
        self._processes[device].kill()

    def stop(self) -> list[Job]:
        """End all processes, at once those that are busy; return the jobs that this cut short."""
        for device, process in self._processes.items():
            if process.stdin is not None:
                try:
                    process.stdin.close()
                except BrokenPipeError:
                    logger.debug("The process of %s is gone already.", device)
            if device in self._busy or not self._setups:
                process.kill()
        for process in self._processes.values():
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        cut_short = list(self._busy.values())
        self._busy.clear()
        return cut_short

    def _spawn(self, device: str) -> "subprocess.Popen[str]":
        log = None
        if self._log_folder is not None:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            log = self._log_path(device).open("ab")
            self._log_starts[device] = log.tell()
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "asyncval.worker", device, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=device_environment(device),
                text=True,
                start_new_session=True,  # Ctrl-C in the terminal is the daemon's to act on
            )
        finally:
            if log is not None:
                log.close()

    def _restart(self, device: str, now: float) -> None:
        self._processes[device] = self._spawn(device)
        self._starting[device] = now
        self._send(device, setups_to_json(self._setups))
        threading.Thread(target=self._read, args=(device,), daemon=True).start()

    def _read(self, device: str) -> None:
        """Post everything that one process says, until it ends."""
        process = self._processes[device]
        assert process.stdout is not None
        for line in process.stdout:
            try:
                values = json.loads(line)
            except ValueError:  # it was killed in the middle of a word
                continue
            self._post(Message(device, values.pop("kind"), values))
        how = _how_it_ended(process.wait())
        reason = f"The evaluation process ended unexpectedly ({how}).{self._last_words(device)}"
        self._post(Message(device, "stopped", {"reason": reason}))

    def _log_path(self, device: str) -> Path:
        assert self._log_folder is not None
        return self._log_folder / f"worker-{device.replace(':', '-')}.log"

    def _last_words(self, device: str) -> str:
        if self._log_folder is None:
            return ""
        try:
            with self._log_path(device).open("rb") as log:
                log.seek(max(log.seek(0, os.SEEK_END) - LAST_BYTES, self._log_starts[device]))
                lines = log.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:  # somebody cleared the folder up
            return ""
        return f" Its last words: {lines[-1][:300]}" if lines else ""


def refuse_several_precisions(answers: Mapping[str, Mapping[str, Any]]) -> None:
    """See to it that the results of one run can be compared."""
    precisions = {device: answer["precision"] for device, answer in answers.items()}
    if len(set(precisions.values())) > 1:
        found = ", ".join(f"{device} in {each}" for device, each in precisions.items())
        raise InvalidOption(
            f"--devices would not encode alike ({found}): give a --dtype that all are good at."
        )


def _how_it_ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


Inbox = SimpleQueue[Any]
"""Where everything that the daemon waits for arrives: messages, wake-ups, signals."""
