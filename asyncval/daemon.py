"""The loop of `asyncval watch`: find, queue, hand out, record, report."""

import logging
import signal
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from asyncval.core.ports import Clock
from asyncval.core.types import Job, Progress, Result, State, Validation
from asyncval.execution.local import LocalExecutor, Message
from asyncval.execution.messages import result_from_values
from asyncval.ledger.sqlite import Ledger
from asyncval.reporting import Reporting
from asyncval.watcher import Alarm, Watcher

logger = logging.getLogger(__name__)
WAKE = "wake"
COALESCE_SECONDS = 0.05
MAX_ATTEMPTS = 3
STOP_GRACE_SECONDS = 10.0
EXIT_OK = 0
EXIT_SOME_FAILED = 4
NOT_STARTED = (Progress(phase="start"), 0.0)


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that the process got; the handler only takes a note."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When the daemon ends by itself, and how often it looks.

    Args:
        max_num_valid: After this many checkpoints are validated, those of earlier runs of
            the same plan included.
        idle_timeout: After so many seconds without anything new.
        scan_seconds: The longest time between two scans.
    """

    max_num_valid: int | None = None
    idle_timeout: float | None = None
    scan_seconds: float = 2.0


@dataclass(slots=True, kw_only=True)
class View:
    """What a terminal may show of the daemon."""

    validations: list[Validation] = field(default_factory=list)
    running: Mapping[str, tuple[Job, Progress, float]] = field(default_factory=dict)
    """By device: the job, how far it is, and the monotonic time at which the phase began."""
    waiting: Mapping[str, str] = field(default_factory=dict)


class Screen(Protocol):
    """Whoever shows the view."""

    def update(self, view: View, *, now: float) -> None:
        """Show the view as of the monotonic time `now`."""


class Daemon:
    """Brings watcher, ledger, executor and reporters together until it is time to end.

    Args:
        watcher: Finds checkpoints.
        ledger: Records everything.
        executor: Runs the validations.
        reporting: Shows the results.
        screen: Shows the state.
        inbox: Where messages of the executor arrive.
        plan: The plan's digest.
        limits: When to end.
        clock: The time.
    """

    def __init__(
        self,
        *,
        watcher: Watcher,
        ledger: Ledger,
        executor: LocalExecutor,
        reporting: Reporting,
        screen: Screen,
        inbox: "SimpleQueue[Any]",
        plan: str,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._watcher = watcher
        self._ledger = ledger
        self._executor = executor
        self._reporting = reporting
        self._screen = screen
        self._inbox = inbox
        self._plan = plan
        self._limits = limits
        self._clock = clock
        self._alarm = Alarm(watcher.root, lambda: inbox.put(WAKE))
        self._view = View()
        self._progress: dict[str, tuple[Progress, float]] = {}
        self._active_at = clock.monotonic()
        self._stop_signals: deque[int] = deque()
        self._stop_at = 0.0

    def run(self) -> int:
        """Work until an end condition is met or a signal comes; return the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda got, frame: self._inbox.put(Signal(got)))
        self._ledger.requeue_running(plan=self._plan)
        states = self._ledger.folder_states(plan=self._plan)
        self._watcher.reported.update(
            {
                name.rpartition("/")[2]: state
                for name, state in states.items()
                if name.rpartition("/")[0] == str(self._watcher.root.absolute())
            }
        )
        self._reporting.publish(everything=True)
        try:
            return self._loop()
        finally:
            self._alarm.stop()
            for job in self._executor.stop():
                self._ledger.requeue(job.id)
            self._refresh()
            self._reporting.close()

    def _loop(self) -> int:
        if not self._watcher.root.is_dir():
            logger.info("Waiting for %s to appear.", self._watcher.root)
        while True:
            if not self._stop_signals:
                self._alarm.rearm()
                self._alarm.reset()
                self._look()
                self._hand_out()
            self._refresh()
            code = self._exit_code()
            if code is not None:
                return code
            self._wait()

    def _look(self, *, give_up: bool = False) -> None:
        for found in self._watcher.scan(give_up=give_up):
            is_new = self._ledger.enqueue(
                found.checkpoint, plan=self._plan, folder_state=found.state, problem=found.problem
            )
            self._active_at = self._clock.monotonic()
            if is_new and found.problem:
                logger.warning("%s failed: %s", found.checkpoint.name, found.problem)
            elif is_new:
                logger.info("%s is complete and queued.", found.checkpoint.name)
        self._active_at = max(self._active_at, self._watcher.changed_at)

    def _hand_out(self) -> None:
        for device in self._executor.idle:
            wanted = self._limits.max_num_valid
            if wanted is not None and self._num_done() + len(self._executor.running) >= wanted:
                return
            job = self._ledger.claim(plan=self._plan)
            if job is None:
                return
            logger.info("%s: validating on %s.", job.checkpoint.name, self._executor.label(device))
            self._executor.submit(device, job)

    def _num_done(self) -> int:
        return sum(each.state is State.DONE for each in self._view.validations)

    def _wait(self) -> None:
        """Wait for the next thing to happen, at most until the next scan; act on all of it."""
        try:
            item = self._inbox.get(timeout=self._limits.scan_seconds)
            self._act_on(item)
            if item == WAKE:  # a save makes many events: let it come to rest
                self._act_on(self._inbox.get(timeout=COALESCE_SECONDS))
            while True:
                self._act_on(self._inbox.get_nowait())
        except Empty:
            return

    def _act_on(self, item: Any) -> None:  # noqa: ANN401
        if isinstance(item, Signal):
            self._stop_signals.append(item.number)
            if len(self._stop_signals) == 1:
                self._stop_at = self._clock.monotonic() + STOP_GRACE_SECONDS
                names = ", ".join(job.checkpoint.name for job in self._executor.running.values())
                if names:
                    logger.info(
                        "Stopping. %s may finish within %.0f s, or goes back to the queue; a "
                        "second signal ends at once.",
                        names,
                        STOP_GRACE_SECONDS,
                    )
        elif isinstance(item, Message):
            self._take_message(item)

    def _take_message(self, message: Message) -> None:
        if message.kind == "progress":
            progress = Progress(
                phase=message.values["phase"],
                done=message.values["done"],
                total=message.values["total"],
            )
            before, since = self._progress.get(message.device, NOT_STARTED)
            if before.phase != progress.phase:
                since = self._clock.monotonic()
            self._progress[message.device] = (progress, since)
            return
        job = self._executor.take_note(message)
        if job is None:
            return
        self._progress.pop(message.device, None)
        self._active_at = self._clock.monotonic()
        if message.kind == "done":
            self._record(job, result_from_values(message.values["result"]))
        elif message.kind == "stopped" and job.attempts < MAX_ATTEMPTS:
            logger.warning(
                "%s: %s It is tried again.", job.checkpoint.name, message.values["reason"]
            )
            self._ledger.retry(job.id)
        else:
            self._ledger.fail(job.id, message.values["reason"])
            logger.warning("%s failed: %s", job.checkpoint.name, message.values["reason"])

    def _record(self, job: Job, result: Result) -> None:
        known = {warning for each in self._view.validations for warning in _warnings(each)}
        for warning in result.warnings:
            if warning not in known:
                logger.warning("%s: %s", job.checkpoint.name, warning)
        self._ledger.finish(job.id, result)
        values = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
        self._refresh()
        logger.info(
            "%s: %s (%.1f s, %d waiting)",
            job.checkpoint.name,
            values,
            result.seconds["total"],
            sum(each.state is State.QUEUED for each in self._view.validations),
        )
        self._reporting.publish()

    def _refresh(self) -> None:
        self._view.validations = self._ledger.validations(plan=self._plan)
        self._view.running = {
            self._executor.label(device): (job, *self._progress.get(device, NOT_STARTED))
            for device, job in self._executor.running.items()
        }
        self._view.waiting = self._watcher.waiting
        self._screen.update(self._view, now=self._clock.monotonic())

    def _exit_code(self) -> int | None:
        """Return the exit code if it is time to end, else None."""
        if self._stop_signals:
            overdue = self._clock.monotonic() >= self._stop_at
            if len(self._stop_signals) > 1 or overdue or not self._executor.running:
                return 128 + self._stop_signals[0]
            return None
        if self._executor.running:
            return None
        limits = self._limits
        if limits.max_num_valid is not None and self._num_done() >= limits.max_num_valid:
            logger.info("Validated %d checkpoints, as --max_num_valid says.", self._num_done())
            return self._final_code()
        idle = self._clock.monotonic() - self._active_at
        waits = any(each.state is State.QUEUED for each in self._view.validations)
        if limits.idle_timeout is not None and idle >= limits.idle_timeout and not waits:
            logger.info("Nothing came for %.0f s, as --idle_timeout says.", limits.idle_timeout)
            self._look(give_up=True)
            self._refresh()
            if any(each.state is State.QUEUED for each in self._view.validations):
                return None  # one whose quiet time was not over
            return self._final_code()
        return None

    def _final_code(self) -> int:
        failed = any(each.state is State.FAILED for each in self._view.validations)
        return EXIT_SOME_FAILED if failed else EXIT_OK


def _warnings(validation: Validation) -> tuple[str, ...]:
    return validation.result.warnings if validation.result else ()
