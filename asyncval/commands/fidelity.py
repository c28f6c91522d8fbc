"""`asyncval fidelity`: results on a subset against results on the full corpus."""

import json
import logging
from pathlib import Path

from rich.console import Console

from asyncval.commands.ledgers import open_ledger, wide_console
from asyncval.config import FidelityConfig
from asyncval.core.records import current
from asyncval.subsets.fidelity import (
    Results,
    as_json,
    compare_folders,
    render_fidelity,
)
from asyncval.subsets.plot import draw
from asyncval.ui import set_up_logging

logger = logging.getLogger(__name__)


def fidelity(config: FidelityConfig) -> int:
    """Print how far results on a subset may be trusted."""
    console = Console(stderr=True)
    set_up_logging(console)
    comparison = compare_folders(
        _results(config.output_dir),
        _results(config.against),
        num_resamples=config.resamples,
        seed=config.seed,
    )
    for remark in comparison.remarks:
        logger.warning(remark)
    if config.plot is not None:
        draw(comparison, config.plot)
        logger.info("The plot is in %s.", config.plot)
    if config.json:
        print(json.dumps(as_json(comparison), indent=2))
        return 0
    for part in render_fidelity(comparison):
        wide_console().print(part)
    return 0


def _results(output_dir: Path) -> Results:
    with open_ledger(output_dir) as ledger:
        plan = ledger.newest_plan() or ""
        rows = current(ledger.validations(plan=plan))
        return Results(output_dir, rows, ledger.plan_description(plan))
