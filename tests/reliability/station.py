"""A daemon in this process: the real one, but its evaluator is a function."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from asyncval.checkpoints.pins import PinStore, pin_root
from asyncval.core.errors import CheckpointError
from asyncval.core.ports import Clock, Reporter
from asyncval.core.types import MAIN, Job, PinMethod, Result, Validation
from asyncval.daemon import Daemon, Lane, Limits
from asyncval.execution.local import Message
from asyncval.execution.messages import result_to_values
from asyncval.keeping import Keeping
from asyncval.ledger.sqlite import Ledger
from asyncval.lookout import Lookout
from asyncval.lookup import look_up
from asyncval.reporters import REPORTERS
from asyncval.reporting import Reporting
from asyncval.watcher import Habits, Watcher
from tests.clocks import FakeClock
from tests.reliability.light_worker import measure

PLAN = "plan"
ANCHOR = "anchor"
DEVICE = "cpu"
Evaluate = Callable[[Job], Mapping[str, float]]


def measured(job: Job) -> Mapping[str, float]:
    return measure(job.checkpoint.location)


class DirectExecutor:
    """Evaluates as soon as it is asked to, and posts what came of it."""

    def __init__(self, inbox: "SimpleQueue[Any]", evaluate: Evaluate) -> None:
        self._inbox = inbox
        self.evaluate = evaluate
        self.running: dict[str, Job] = {}
        self.served: list[Job] = []

    @property
    def idle(self) -> list[str]:
        return [] if self.running else [DEVICE]

    def label(self, device: str) -> str:
        return device

    def submit(self, device: str, job: Job) -> None:
        self.running[device] = job
        self.served.append(job)
        values: dict[str, Any]
        try:
            metrics = self.evaluate(job)
        except CheckpointError as error:
            kind, values = "failed", {"reason": str(error)}
        except OSError as error:
            kind, values = "failed", {"reason": str(error), "cause": "disk"}
        else:
            result = Result(metrics=metrics, dimension=16, seconds={"total": 1.0})
            kind, values = "done", {"result": result_to_values(result)}
        self._inbox.put(Message(device, kind, {"job": job.id, **values}))

    def take_note(self, message: Message) -> Job | None:
        return self.running.pop(message.device, None)

    def revive(self, now: float) -> None:
        """It never stops."""

    def slow_starters(self, before: float) -> list[str]:
        return []

    def stop(self) -> list[Job]:
        cut_short = list(self.running.values())
        self.running.clear()
        return cut_short


class Blind:
    """A screen that shows nothing."""

    def update(self, view: object, *, now: float) -> None:
        """Nobody looks."""

    def close(self) -> None:
        """Nothing was opened."""


class Station:
    """One life of a daemon on `folder`; a second one on the same folder is a restart."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        settle: float = 5.0,
        pin: PinMethod = "auto",
        pins: Path | None = None,
        habits: Habits | None = None,
        evaluate: Evaluate = measured,
        with_anchor: bool = False,
        keep_best: int = 1,
        **limits: Any,
    ) -> None:
        self.root = folder / "training"
        self.output = folder / "validation"
        self.clock = clock or FakeClock()
        self.ledger = self._open_ledger(self.output, MAIN)
        self.pins = PinStore(pins or pin_root(self.root, self.output), method=pin)
        self.watcher = Watcher(
            root=self.root,
            habits=habits or Habits(settle_seconds=settle),
            pins=self.pins,
            clock=self.clock,
        )
        self.inbox: SimpleQueue[Any] = SimpleQueue()
        self.executor = DirectExecutor(self.inbox, evaluate)
        executor: Any = self.executor
        places = {"output_dir": self.output, "logging_dir": folder / "tb", "run_name": "asyncval"}
        reporters: dict[str, Reporter] = {
            name: look_up(name, REPORTERS, option="--report_to")(**places) for name in REPORTERS
        }
        self.reporting = Reporting(self.ledger, reporters, plan=PLAN, clock=self.clock)
        lanes = {MAIN: Lane(ledger=self.ledger, plan=PLAN, reporting=self.reporting)}
        if with_anchor:
            self.anchor = self._open_ledger(self.output / ANCHOR, ANCHOR)
            unseen = Reporting(self.anchor, {}, plan=PLAN, clock=self.clock)
            lanes[ANCHOR] = Lane(ledger=self.anchor, plan=PLAN, reporting=unseen)
        self.daemon = Daemon(
            lookout=Lookout(
                self.watcher,
                self.pins,
                wake=lambda: None,
                events=False,
                scan_seconds=0.01,
                one_by_one="max_pinned_bytes" in limits,
            ),
            pins=self.pins,
            lanes=lanes,
            executor=executor,
            screen=Blind(),
            keeping=Keeping(self.ledger, plan=PLAN, output_dir=self.output, number=keep_best),
            inbox=self.inbox,
            limits=Limits(scan_seconds=0.01, **limits),
            clock=self.clock,
        )

    def _open_ledger(self, folder: Path, lane: str) -> Ledger:
        folder.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(folder, clock=self.clock, lane=lane)
        ledger.use_plan(PLAN, {})
        return ledger

    def look(self) -> None:
        """Scan once, and queue what was found."""
        self.daemon._look()

    def work(self) -> None:
        """Turn the daemon's loop until there is nothing to do at this time."""
        served = -1
        while served != len(self.executor.served) or self.executor.running:
            served = len(self.executor.served)
            self.daemon._turn()
            self._take_notes()

    def _take_notes(self) -> None:
        while True:
            try:
                self.daemon._note(self.inbox.get_nowait())
            except Empty:
                return

    def run(self) -> int:
        """Run the daemon from its start to its end; it must have a reason to end."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = [signal.getsignal(number) for number in numbers]
        try:
            return self.daemon.run()
        finally:
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)

    def run_until_done(self) -> int:
        """Run the daemon from its start until everything that can be done is done."""
        done_file = self.output.parent / "done"
        done_file.touch()
        self.daemon._limits = replace(self.daemon._limits, done_file=done_file)
        return self.run()

    def rows(self) -> list[Validation]:
        return self.ledger.validations(plan=PLAN)

    def states(self) -> list[tuple[str, str]]:
        """Return name and state of every row, ascending by step."""
        return [(each.checkpoint.name, str(each.state)) for each in self.rows()]
