"""From the ledger to the reporters: each result is shown, and a failing place is tried again."""

import logging
from collections.abc import Callable, Mapping

from asyncval.core.ports import Reporter
from asyncval.core.records import with_result
from asyncval.core.types import Validation
from asyncval.ledger.sqlite import Ledger

logger = logging.getLogger(__name__)


class Reporting:
    """Keeps every reporter up to date with the results of one plan.

    Args:
        ledger: The truth.
        reporters: By name.
        plan: The plan's digest.
        derive: Adds to results, ascending by step, what follows from them and from others.
    """

    def __init__(
        self,
        ledger: Ledger,
        reporters: Mapping[str, Reporter],
        *,
        plan: str,
        derive: Callable[[list[Validation]], list[Validation]] = lambda results: results,
    ) -> None:
        self._ledger = ledger
        self._reporters = reporters
        self._plan = plan
        self._derive = derive

    def publish(self, *, everything: bool = False) -> None:
        """Give each reporter what it has not shown.

        Args:
            everything: Call each even if it has shown all, so that it repairs what it keeps.
        """
        missing_by_name = {
            name: self._ledger.undelivered(name, plan=self._plan) for name in self._reporters
        }
        if not everything and not any(missing_by_name.values()):
            return
        recorded = self._derive(with_result(self._ledger.validations(plan=self._plan)))
        for name, reporter in self._reporters.items():
            missing = missing_by_name[name]
            fresh = [each for each in recorded if each.id in missing]
            if not missing and not everything:
                continue
            try:
                reporter.publish(fresh, recorded)
            except Exception:  # a border to foreign code: it must not stop the validation
                logger.exception("Reporting to %s failed; it is tried again with the next.", name)
            else:
                self._ledger.mark_delivered(name, sorted(missing))

    def close(self) -> None:
        """Let every reporter finish."""
        for name, reporter in self._reporters.items():
            try:
                reporter.close()
            except Exception:
                logger.exception("Closing %s failed.", name)
