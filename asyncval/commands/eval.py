"""`asyncval eval`: the named checkpoints, once, in this process."""

import logging
import os
from collections.abc import Sequence

from rich.console import Console

from asyncval.clock import SystemClock
from asyncval.commands.ledgers import print_rows
from asyncval.commands.preparation import (
    check_options,
    device_name,
    read_collection,
    require_writable,
    worker_setup,
)
from asyncval.config import EvalConfig
from asyncval.core.errors import InvalidOption
from asyncval.core.types import State, Validation
from asyncval.evaluation import Evaluation, evaluate_all, tame_libraries
from asyncval.execution.local import device_environment
from asyncval.ui import EvalScreen, profile_table, set_up_logging

logger = logging.getLogger(__name__)


def evaluate(config: EvalConfig) -> int:
    """Validate the named checkpoints and print what came of it."""
    console = Console(stderr=True)
    set_up_logging(console)
    rows = evaluate_named(config, console)
    print_rows(rows, as_json=config.json)
    if config.profile:
        console.print(profile_table(rows))
    for warning, name in first_warnings(rows).items():
        logger.warning("%s: %s", name, warning)
    failed = [row for row in rows if row.state is State.FAILED]
    for row in failed:
        logger.error("%s failed: %s", row.checkpoint.name, row.reason)
    return 4 if failed else 0


def evaluate_named(config: EvalConfig, console: Console) -> list[Validation]:
    """Validate the named checkpoints and return what came of it."""
    check_options(config)
    missing = [str(path) for path in config.checkpoints if not path.is_dir()]
    if missing or not config.checkpoints:
        raise InvalidOption(
            f"CKPT: there is no folder {missing[0]!r}." if missing else "CKPT: give a checkpoint."
        )
    names = [path.name for path in config.checkpoints]
    if config.output_dir is not None and len(set(names)) < len(names):
        raise InvalidOption("CKPT: two folders have the same name, so their run files would too.")
    if len(config.devices) > 1:
        raise InvalidOption("--devices: `asyncval eval` runs on one device.")
    if config.output_dir is not None:
        require_writable(config.output_dir, option="--output_dir")
    device = device_name(config.devices[0])
    os.environ.update(device_environment(device))
    tame_libraries()
    collection = read_collection(config, output_dir=config.output_dir)
    setup = worker_setup(config, collection, output_dir=config.output_dir)
    evaluation = Evaluation(setup, device=device)
    if evaluation.note:
        logger.warning(evaluation.note)
    clock = SystemClock()
    with EvalScreen(console) as screen:
        return evaluate_all(
            config.checkpoints,
            evaluation,
            listener=lambda name, progress: screen.show(name, progress, now=clock.monotonic()),
        )


def first_warnings(rows: Sequence[Validation]) -> dict[str, str]:
    """Return each warning once, with the checkpoint that it came with first."""
    said: dict[str, str] = {}
    for row in rows:
        for warning in row.result.warnings if row.result else ():
            said.setdefault(warning, row.checkpoint.name)
    return said
