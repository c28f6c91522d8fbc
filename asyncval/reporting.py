"""From the ledger to the reporters: each result is shown, and a failing place is tried again."""

import logging
from collections.abc import Callable, Mapping

from asyncval.core.ports import Clock, Reporter
from asyncval.core.records import with_result
from asyncval.core.types import Validation
from asyncval.ledger.sqlite import Ledger

logger = logging.getLogger(__name__)
RETRY_SECONDS = 10.0
"""How long a reporter that failed is left alone."""


class Reporting:
    """Keeps every reporter up to date with the results of one plan.

    Args:
        ledger: The truth.
        reporters: By name.
        plan: The plan's digest.
        clock: Says when a reporter that failed may be tried again.
        derive: Adds to results, ascending by step, what follows from them and from others.
    """

    def __init__(
        self,
        ledger: Ledger,
        reporters: Mapping[str, Reporter],
        *,
        plan: str,
        clock: Clock,
        derive: Callable[[list[Validation]], list[Validation]] = lambda results: results,
    ) -> None:
        self._ledger = ledger
        self._reporters = reporters
        self._plan = plan
        self._clock = clock
        self._derive = derive
        self._failures: dict[str, tuple[str, float]] = {}
        """By reporter: what went wrong last, and until when, monotonic, it is left alone."""

    def publish(self, *, everything: bool = False, at_once: bool = False) -> None:
        """Give each reporter what it has not shown.

        Args:
            everything: Call each even if it has shown all, so that it repairs what it keeps.
            at_once: Call also one that failed just now.
        """
        now = self._clock.monotonic()
        due = [
            name
            for name in self._reporters
            if at_once or self._failures.get(name, ("", 0.0))[1] <= now
        ]
        missing_by_name = {
            name: missing
            for name in due
            if (missing := self._ledger.undelivered(name, plan=self._plan))
            or everything
            or name in self._failures  # it may have been called to repair what it keeps
        }
        if not missing_by_name:
            return
        recorded = self._derive(with_result(self._ledger.validations(plan=self._plan)))
        for name, missing in missing_by_name.items():
            fresh = [each for each in recorded if each.id in missing]
            try:
                self._reporters[name].publish(fresh, recorded)
            except Exception as error:  # a border to foreign code: it must not stop the validation
                self._note_failure(name, f"{type(error).__name__}: {error}", now=now)
            else:
                self._failures.pop(name, None)
                self._ledger.mark_delivered(name, sorted(missing))

    def _note_failure(self, name: str, reason: str, *, now: float) -> None:
        """Say what went wrong, with its traceback where it is something new."""
        if self._failures.get(name, ("", 0.0))[0] != reason:
            logger.exception("Reporting to %s failed; it is tried again.", name)
        self._failures[name] = reason, now + RETRY_SECONDS

    def close(self) -> None:
        """Let every reporter finish."""
        for name, reporter in self._reporters.items():
            try:
                reporter.close()
            except Exception:
                logger.exception("Closing %s failed.", name)
