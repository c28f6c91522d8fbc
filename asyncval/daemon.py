"""The loop of `asyncval watch`: find, keep, queue, hand out, record, report."""

import logging
import signal
import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from operator import attrgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from asyncval.checkpoints.pins import MARK, Pin, PinStore, folder_bytes, read_ahead
from asyncval.core.discovery import step_in_name
from asyncval.core.errors import DataChanged, OutputUnavailable
from asyncval.core.ports import Clock
from asyncval.core.types import (
    MAIN,
    NOT_VALIDATED,
    Checkpoint,
    Job,
    Progress,
    Result,
    State,
    Validation,
)
from asyncval.execution.local import LocalExecutor, Message
from asyncval.execution.messages import result_from_values
from asyncval.keeping import Keeping
from asyncval.ledger.sqlite import Ledger
from asyncval.lookout import Lookout
from asyncval.reporting import Reporting
from asyncval.watcher import Found, known_states

logger = logging.getLogger(__name__)
WAKE = "wake"
RETRY_SECONDS = (1.0, 10.0)
"""How long a job waits after each failed attempt; one attempt more than these, and it failed."""
DISK_SECONDS = 10.0
"""How long a job waits that found no space for what it writes; that costs no attempt."""
MAX_SHRINKS = 5
STOP_GRACE_SECONDS = 10.0
START_SECONDS = 900.0
"""How long a process may take until it is ready when it is started again."""
EXIT_OK = 0
EXIT_SOME_FAILED = 4
SEARCH = "search"
NOT_STARTED = (Progress(phase="start"), 0.0)


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that the process got; the handler only takes a note."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When the daemon ends by itself, and what it may use.

    Args:
        max_num_valid: End after this many checkpoints are validated, those of earlier runs of
            the same plan included.
        until_step: End once a checkpoint of this step or a later one is through.
        done_file: End, once everything is through, when this file is there.
        idle_timeout: End after so many seconds without anything new.
        time_limit: The seconds that one validation may take.
        max_pinned_bytes: The most that pins may hold.
        scan_seconds: The longest time between two scans.
    """

    max_num_valid: int | None = None
    until_step: int | None = None
    done_file: Path | None = None
    idle_timeout: float | None = None
    time_limit: float | None = None
    max_pinned_bytes: int | None = None
    scan_seconds: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A queue of its own: a plan, its ledger, and where its results are shown.

    Args:
        ledger: Records everything.
        plan: The plan's digest.
        reporting: Shows the results.
        every: Takes every so many-th checkpoint.
    """

    ledger: Ledger
    plan: str
    reporting: Reporting
    every: int = 1

    def validations(self) -> list[Validation]:
        """Return all rows of the plan, ascending by step."""
        return self.ledger.validations(plan=self.plan)


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

    def close(self) -> None:
        """Show nothing more."""


class Daemon:
    """Brings watcher, ledger, executor and reporters together until it is time to end.

    Args:
        lookout: Finds checkpoints; it puts `WAKE` into the inbox.
        pins: Where they are kept.
        lanes: By name; the first is the main one, the others come after it and get their
            checkpoints from it.
        executor: Runs the validations.
        screen: Shows the state.
        keeping: Keeps the best, if that is wanted.
        inbox: Where messages of the executor arrive.
        limits: When to end, and what may be used.
        clock: The time.
    """

    def __init__(
        self,
        *,
        lookout: Lookout,
        pins: PinStore,
        lanes: Mapping[str, Lane],
        executor: LocalExecutor,
        screen: Screen,
        inbox: "SimpleQueue[Any]",
        limits: Limits,
        clock: Clock,
        keeping: Keeping | None = None,
    ) -> None:
        self._lookout = lookout
        self._pins = pins
        self._lanes = lanes
        self._main = next(iter(lanes.values()))
        self._executor = executor
        self._screen = screen
        self._keeping = keeping
        self._inbox = inbox
        self._limits = limits
        self._clock = clock
        self._view = View()
        self._progress: dict[str, tuple[Progress, float]] = {}
        self._started_at: dict[str, float] = {}
        self._overdue: set[str] = set()
        self._messages: deque[Message] = deque()
        self._active_at = clock.monotonic()
        self._signals: deque[int] = deque()
        self._stop_at = 0.0
        self._is_stuck = False
        self._must_clean = False
        self._reasons_to_wait: set[str] = set()
        self._read: Path | None = None

    def run(self) -> int:
        """Work until an end condition is met or a signal comes; return the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda got, frame: self._inbox.put(Signal(got)))
        try:
            self._take_up()
        except (sqlite3.OperationalError, OSError) as error:
            raise OutputUnavailable(f"--output_dir cannot be written: {error}.") from error
        root = self._lookout.watcher.root
        if not root.is_dir():
            logger.info("Waiting for %s to appear.", root)
        self._lookout.start()
        try:
            while True:
                code = self._turn()
                if code is not None:
                    return code
                self._wait()
        finally:
            self._lookout.stop()
            # On a full disk the next start takes up what this one leaves.
            with suppress(sqlite3.OperationalError, OSError):
                for job in self._executor.stop():
                    self._lanes[job.lane].ledger.requeue(job.id)
                self._queue_found()
                self._keep_best(now=inf)
                self._clean_pins()
                self._pins.remove_root()
                self._refresh()
                for lane in self._lanes.values():
                    lane.reporting.publish(at_once=True)
            for lane in self._lanes.values():
                lane.reporting.close()

    def _take_up(self) -> None:
        """Continue from what an earlier process left."""
        for lane in self._lanes.values():
            lane.ledger.retire_other_plans(lane.plan)
            lane.ledger.requeue_running(plan=lane.plan)
            lane.reporting.publish(everything=True)
        others = self._main.ledger.count_of_others(self._main.plan)
        if others:
            logger.info(
                "Results of %d checkpoints are by other options or data, or of another "
                "--ckpts_dir, and are not shown.",
                others,
            )
        states = self._main.ledger.folder_states(plan=self._main.plan)
        for path in self._due_elsewhere():
            states.pop(str(path), None)  # it is found again, and known only to the main lane
        watcher = self._lookout.watcher
        watcher.reported.update(known_states(states, watcher.root))
        self._lookout.adopt(self._main.ledger.recorded_pins())
        self._queue_found()
        self._keep_best()
        self._clean_pins()

    def _due_elsewhere(self) -> set[Path]:
        """Return the folders of checkpoints that another lane should have and does not."""
        known = sorted(self._main.validations(), key=attrgetter("id"))
        newest = {each.checkpoint.path: each for each in known}
        due: set[Path] = set()
        for lane in self._other_lanes():
            there = set(map(_content, lane.validations()))
            due |= {
                each.checkpoint.path
                for each in known[lane.every - 1 :: lane.every]
                if _content(each) not in there
                and newest[each.checkpoint.path] is each
                and each.state in (State.QUEUED, State.DONE)
            }
        return due

    def _turn(self) -> int | None:
        """Do everything that can be done now; return the exit code if it is time to end.

        What cannot be recorded now, as the disk is full, is kept and tried again.
        """
        try:
            while self._messages:
                self._take_message(self._messages[0])
                self._messages.popleft()
            self._executor.revive(self._clock.monotonic())
            if not self._signals:
                self._look()
                self._stop_overdue()
                self._hand_out()
            self._keep_best()
            for lane in self._lanes.values():
                lane.reporting.publish()
            self._refresh()
            self._is_stuck = self._lookout.is_hurried = False
            return self._exit_code()
        except (sqlite3.OperationalError, OSError) as error:
            if not self._is_stuck:
                logger.warning("Cannot record (%s): trying again until it works.", error)
            self._is_stuck = self._lookout.is_hurried = True  # the trainer does not wait
            return 128 + self._signals[0] if self._signals else None

    # Finding

    def _look(self) -> None:
        self._lookout.go_on()
        while self._queue_found():
            self._lookout.go_on()
        if self._must_clean:
            self._clean_pins()

    def _look_last(self) -> bool:
        """Say whether something is new; if not, take what is there as nobody goes on with it.

        What is of a later step than `--until_step` is left alone.
        """
        self._lookout.look()
        if self._queue_found() or not self._is_settled():
            return True
        self._lookout.look(give_up=True, last_step=self._last_step())
        self._queue_found()
        return not self._is_settled()

    def _queue_found(self) -> bool:
        """Record what was found and say whether there was anything.

        What cannot be recorded now stays, and its pin with it.
        """
        found = self._lookout.found
        is_new = bool(found)
        while found:
            self._queue(found[0])
            found.popleft()
        if is_new:
            self._clean_pins()
        return is_new

    def _queue(self, found: Found) -> None:
        name = found.checkpoint.name
        for lane in self._other_lanes() if found.fate is State.QUEUED else ():
            if self._ordinal(found.checkpoint) % lane.every == 0:
                self._enqueue(found, lane)
        # The main lane last: what it knows is not looked at again after a kill.
        is_new = self._enqueue(found, self._main)
        self._expect_another_best()  # content that came back may be it
        self._active_at = self._clock.monotonic()
        if found.fate is State.QUEUED:
            self._stay_within_limits()
        if is_new and found.reason:
            logger.warning("%s is %s: %s", name, found.fate, found.reason)
        elif is_new:
            logger.info("%s is complete and queued.", name)

    def _ordinal(self, checkpoint: Checkpoint) -> int:
        """Return the place of a content among all that was found, in that order, from 1."""
        known = sorted(self._main.validations(), key=attrgetter("id"))
        contents = list(map(_content, known))
        content = (checkpoint.path, checkpoint.fingerprint)
        return contents.index(content) + 1 if content in contents else len(contents) + 1

    def _other_lanes(self) -> list[Lane]:
        return [lane for lane in self._lanes.values() if lane is not self._main]

    def _enqueue(self, found: Found, lane: Lane) -> bool:
        return lane.ledger.enqueue(
            found.checkpoint,
            plan=lane.plan,
            folder_state=found.folder_state,
            pin_state=found.pin_state,
            fate=found.fate,
            reason=found.reason,
        )

    def _stay_within_limits(self) -> None:
        """Give up the oldest checkpoints that wait while pins hold more than they may."""
        limit = self._limits.max_pinned_bytes
        if limit is None:
            return
        running = self._executor.running.values()
        jobs = {(job.lane, job.id) for job in running}
        in_work = {job.checkpoint.pin for job in running} | {
            path
            for name, lane in self._lanes.items()
            for job_id, path in lane.ledger.pins().items()
            if (name, job_id) in jobs
        }
        sizes = {path: folder_bytes(path) for path in self._kept_pins()}
        waiting = [path for path in sizes if path not in in_work]
        reason = f"Pins would hold more than --max_pinned_bytes {limit}."
        while sum(sizes.values()) > limit and len(waiting) > 1:
            oldest = waiting.pop(0)
            sizes.pop(oldest)
            logger.warning("%s is given up: %s", oldest.name.partition(MARK)[0], reason)
            for lane in self._lanes.values():
                for job_id, path in lane.ledger.pins().items():
                    if path == oldest:
                        lane.ledger.close_without_result(job_id, State.SKIPPED, reason)

    def _kept_pins(self) -> list[Path]:
        """Return the pins of all open jobs, each once, the lowest step first, and what is read."""
        pins = [path for lane in self._lanes.values() for path in lane.ledger.pins().values()]
        pins += [
            job.checkpoint.pin for job in self._executor.running.values() if job.checkpoint.pin
        ]
        return list(dict.fromkeys(pins))

    def _clean_pins(self) -> None:
        best = self._keeping.pins() if self._keeping else []
        self._must_clean = not self._lookout.clean([*self._kept_pins(), *best])

    def _keep_best(self, now: float | None = None) -> None:
        """Keep the files of the best checkpoint, before its pin is removed."""
        if self._keeping is not None and self._keeping.is_due:
            self._keeping.settle(self._clock.monotonic() if now is None else now)
            self._clean_pins()

    def _expect_another_best(self) -> None:
        if self._keeping is not None:
            self._keeping.is_due = True

    # Handing out

    def _hand_out(self) -> None:
        for device in self._executor.idle:
            job = self._next_job()
            if job is None:
                return
            logger.info("%s: validating on %s.", job.checkpoint.name, self._executor.label(device))
            self._started_at[device] = self._clock.monotonic()
            self._executor.submit(device, job)

    def _next_job(self) -> Job | None:
        """Claim a job whose files are there; one without them is lost until it is found again.

        One of which nothing was ever kept, as it was not whole, has to be looked at anew.
        """
        for lane in self._lanes.values():
            if lane is self._main and self._has_enough():
                continue
            last_step = self._last_step()
            while (job := lane.ledger.claim(plan=lane.plan, last_step=last_step)) is not None:
                if job.pin_state and job.checkpoint.location.is_dir():
                    return job
                kept = "Its files are gone, and so is the copy that was kept."
                reason = kept if job.pin_state else "It was not whole, and nothing of it was kept."
                lane.ledger.close_without_result(job.id, State.LOST, reason)
                self._lookout.forget(job.checkpoint.name)
        return None

    def _read_ahead(self) -> None:
        """Have the next checkpoint's files in memory by the time that a device wants them.

        Without a pin its folder has the optimizer's states too, which nobody here reads.
        """
        waiting = (
            each.checkpoint.pin for each in self._main.validations() if each.state is State.QUEUED
        )
        following = next(waiting, None)
        if following is not None and following != self._read:
            self._read = following
            read_ahead(following)

    def _has_enough(self) -> bool:
        """Say whether what is done and what runs is all that `max_num_valid` wants."""
        wanted = self._limits.max_num_valid
        if wanted is None:
            return False
        done = sum(each.state is State.DONE for each in self._main.validations())
        return done + sum(job.lane == MAIN for job in self._executor.running.values()) >= wanted

    def _stop_overdue(self) -> None:
        limit = self._limits.time_limit
        if limit is None:
            return
        for device, job in list(self._executor.running.items()):
            if self._clock.monotonic() - self._started_at[device] > limit:
                logger.warning(
                    "%s takes longer than --time_limit %.0f s.", job.checkpoint.name, limit
                )
                self._overdue.add(device)
                self._started_at[device] = self._clock.monotonic()
                self._executor.kill(device)
        for device in self._executor.slow_starters(self._clock.monotonic() - START_SECONDS):
            logger.warning("%s: it does not start within %.0f s.", device, START_SECONDS)
            self._executor.kill(device)

    # Messages

    def _wait(self) -> None:
        """Wait for the next thing to happen, at most until the next scan; take note of it all."""
        try:
            self._note(self._inbox.get(timeout=self._limits.scan_seconds))
            while True:
                self._note(self._inbox.get_nowait())
        except Empty:
            return

    def _note(self, item: Any) -> None:  # noqa: ANN401
        if isinstance(item, Message):
            self._messages.append(item)
        elif isinstance(item, Signal):
            self._signals.append(item.number)
            names = ", ".join(job.checkpoint.name for job in self._executor.running.values())
            if len(self._signals) == 1:
                self._stop_at = self._clock.monotonic() + STOP_GRACE_SECONDS
                if names:
                    logger.info(
                        "Stopping. %s may finish within %.0f s, or goes back to the queue; a "
                        "second signal ends at once.",
                        names,
                        STOP_GRACE_SECONDS,
                    )

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
                if progress.phase == SEARCH:
                    self._read_ahead()
            self._progress[message.device] = (progress, since)
            return
        if message.kind == "refused" and message.values.get("is_final"):
            raise DataChanged(message.values["reason"])
        job = self._executor.running.get(message.device)
        if job is not None and message.kind in ("done", "failed", "stopped"):
            self._progress.pop(message.device, None)
            self._active_at = self._clock.monotonic()
            self._end(job, message)
        elif job is None and message.kind in ("refused", "stopped"):
            logger.warning("%s: %s", self._executor.label(message.device), message.values["reason"])
        if self._executor.take_note(message) is not None:
            self._clean_pins()  # now that nobody reads its files

    def _end(self, job: Job, message: Message) -> None:
        """Record how a job ended."""
        if message.kind == "done":
            self._record(job, result_from_values(message.values["result"]))
            return
        ledger = self._lanes[job.lane].ledger
        reason = message.values["reason"]
        if message.kind == "stopped" and message.device in self._overdue:
            self._overdue.discard(message.device)
            reason = f"It took longer than --time_limit {self._limits.time_limit:.0f} s."
        cause = message.values.get("cause", "crash" if message.kind == "stopped" else "")
        if not self._is_intact(job):
            self._void(job)
        elif cause == "memory" and job.shrink < MAX_SHRINKS:
            logger.warning("%s: %s Trying smaller batches.", job.checkpoint.name, reason)
            ledger.retry(job.id, shrink=True)
        elif cause == "disk":
            if reason not in self._reasons_to_wait:
                logger.warning("%s: %s It waits for space.", job.checkpoint.name, reason)
            self._reasons_to_wait.add(reason)
            ledger.requeue(job.id, delay_seconds=DISK_SECONDS)
        elif cause == "crash" and job.attempts <= len(RETRY_SECONDS):
            logger.warning("%s: %s It is tried again.", job.checkpoint.name, reason)
            ledger.retry(job.id, delay_seconds=RETRY_SECONDS[job.attempts - 1])
        else:
            ledger.close_without_result(job.id, State.FAILED, reason)
            logger.warning("%s failed: %s", job.checkpoint.name, reason)
            self._lanes[job.lane].reporting.publish(everything=True)  # patience may be over now

    def _record(self, job: Job, result: Result) -> None:
        if not self._is_intact(job):
            self._void(job)
            return
        known = {warning for each in self._view.validations for warning in _warnings(each)}
        for warning in result.warnings:
            if warning not in known:
                logger.warning("%s: %s", job.checkpoint.name, warning)
        lane = self._lanes[job.lane]
        lane.ledger.finish(job.id, result)
        self._expect_another_best()
        self._refresh()
        values = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
        logger.info(
            "%s: %s (%.1f s, %d waiting)",
            job.checkpoint.name if lane is self._main else f"{job.checkpoint.name} ({job.lane})",
            values,
            result.seconds["total"],
            sum(each.state is State.QUEUED for each in self._view.validations),
        )

    def _is_intact(self, job: Job) -> bool:
        """Say whether the files that were evaluated are still those that were queued."""
        return self._pins.is_unchanged(Pin(job.checkpoint.location, job.pin_state))

    def _void(self, job: Job) -> None:
        """Give up what was evaluated; the same content may have been saved and kept again."""
        ledger, pin = self._lanes[job.lane].ledger, job.checkpoint.pin
        if ledger.pins().get(job.id, pin) != pin:
            logger.info("%s was saved again meanwhile: it is evaluated anew.", job.checkpoint.name)
            ledger.requeue(job.id)
            return
        if job.checkpoint.location.is_dir():
            state, reason = State.SUPERSEDED, "Its files were rewritten while it was evaluated."
        else:
            state, reason = State.LOST, "Its files were deleted while it was evaluated."
        ledger.close_without_result(job.id, state, reason)
        self._lookout.forget(job.checkpoint.name)
        logger.warning("%s is %s: %s", job.checkpoint.name, state, reason)

    def _refresh(self) -> None:
        self._view.validations = self._main.validations()
        self._view.running = {
            self._executor.label(device): (job, *self._progress.get(device, NOT_STARTED))
            for device, job in self._executor.running.items()
        }
        self._view.waiting = dict(self._lookout.watcher.waiting)
        self._screen.update(self._view, now=self._clock.monotonic())

    # Ending

    def _exit_code(self) -> int | None:
        """Return the exit code if it is time to end, else None."""
        if self._signals:
            overdue = self._clock.monotonic() >= self._stop_at
            if len(self._signals) > 1 or overdue or not self._executor.running:
                return 128 + self._signals[0]
            return None
        if self._executor.running or self._messages:
            return None
        reason = self._reason_to_end()
        if reason is None:
            return None
        if not reason.startswith("--max_num_valid"):
            is_new = self._look_last()
            self._refresh()
            if is_new or self._is_waiting(self._lanes.values()):
                return None
        logger.info("Ending, as %s says.", reason)
        return self._final_code()

    def _last_step(self) -> float:
        """Return the step after which nothing is waited for, infinite where there is none."""
        until = self._limits.until_step
        steps = (each.checkpoint.step or 0 for each in self._main.validations())
        return min((each for each in steps if until is not None and each >= until), default=inf)

    def _is_waiting(self, lanes: Iterable[Lane]) -> bool:
        last_step = self._last_step()
        return any(
            each.state is State.QUEUED and (each.checkpoint.step or 0) <= last_step
            for lane in lanes
            for each in lane.validations()
        )

    def _quiet_seconds(self) -> float:
        """Return for how long nothing was found, changed or done."""
        changed_at = self._lookout.watcher.changed_at
        return self._clock.monotonic() - max(self._active_at, changed_at)

    def _is_settled(self) -> bool:
        """Say whether nobody seems to write a checkpoint that is waited for just now."""
        watcher, last_step = self._lookout.watcher, self._last_step()
        steps = [step_in_name(name, watcher.habits.pattern) for name in list(watcher.waiting)]
        is_written = any((step or 0) <= last_step for step in steps)
        return not is_written or self._quiet_seconds() >= watcher.habits.settle_seconds

    def _reason_to_end(self) -> str | None:
        limits = self._limits
        if self._has_enough() and not self._is_waiting(self._other_lanes()):
            return f"--max_num_valid {limits.max_num_valid}"
        if self._is_waiting(self._lanes.values()) or not self._is_settled():
            return None
        if self._last_step() < inf:
            return f"--until_step {limits.until_step}"
        if limits.done_file is not None and limits.done_file.exists():
            return f"--done_file {limits.done_file}"
        if limits.idle_timeout is not None and self._quiet_seconds() >= limits.idle_timeout:
            return f"--idle_timeout {limits.idle_timeout:.0f}"
        return None

    def _final_code(self) -> int:
        rows = (each for lane in self._lanes.values() for each in lane.validations())
        return EXIT_SOME_FAILED if any(each.state in NOT_VALIDATED for each in rows) else EXIT_OK


def _content(validation: Validation) -> tuple[Path, str]:
    return validation.checkpoint.path, validation.checkpoint.fingerprint


def _warnings(validation: Validation) -> tuple[str, ...]:
    return validation.result.warnings if validation.result else ()
