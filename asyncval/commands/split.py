"""`asyncval split`: a corpus subset."""

import logging
import signal
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from asyncval.clock import SystemClock
from asyncval.commands.eval import evaluate_named
from asyncval.commands.preparation import check_texts
from asyncval.config import (
    EncodingConfig,
    EvalConfig,
    SplitConfig,
    TextConfig,
)
from asyncval.core.errors import InvalidData, InvalidOption
from asyncval.core.types import State
from asyncval.data.collection import load_query_sets, tasks_on_one_corpus
from asyncval.subsets.screen import SplitScreen, summary
from asyncval.subsets.splitting import DEFAULT_DEPTH, Choice, split, write_judged_queries
from asyncval.ui import set_up_logging

logger = logging.getLogger(__name__)
TARGET_DEPTH = 1000
"""How deep a checkpoint is searched where the depth of the subset is still to be found."""


def split_corpus(config: SplitConfig) -> int:
    """Make a corpus subset and say what is in it."""
    console = Console(stderr=True)
    set_up_logging(console)
    check_texts(config)
    signal.signal(signal.SIGTERM, _leave)
    with TemporaryDirectory(prefix="asyncval-split-") as folder:
        runs = _runs_of_checkpoint(config, Path(folder), console)
        with SplitScreen(console, clock=SystemClock()) as screen:
            done = split(
                candidates=config.candidate_dir,
                form=config.passage_form(),
                choice=Choice(
                    qrel_files=config.qrel_file,
                    run_files=(*config.run_file, *runs),
                    run_type=config.run_type,
                    depths=config.depth,
                    target_size=config.target_size,
                    keep_judged=config.keep_judged,
                    num_random=config.random,
                    seed=config.seed,
                ),
                output_dir=config.output_dir,
                num_splits=config.num_splits,
                strict=config.strict,
                enclosed=runs,
                origin={"from_checkpoint": str(config.from_checkpoint)} if runs else None,
                listener=screen.show,
            )
    for line in summary(done):
        logger.info(line)
    if done.missing:
        logger.warning(
            "%d wanted passages are not in the corpus, for example %s.",
            done.missing,
            done.missing_examples[0],
        )
    return 0


def _leave(number: int, frame: object) -> None:
    """End as a signal asks, with the clearing up that an exception brings."""
    raise SystemExit(128 + number)


def _runs_of_checkpoint(config: SplitConfig, folder: Path, console: Console) -> list[Path]:
    """Return runs that --from_checkpoint makes with our own pipeline, none where it is not given.

    Raises:
        InvalidOption: What it needs is not given.
        InvalidData: The checkpoint cannot be evaluated.
    """
    if config.from_checkpoint is None:
        return []
    if not config.query_file:
        raise InvalidOption("--from_checkpoint: give the queries with --query_file.")
    tasks = tasks_on_one_corpus(config.query_file, config.qrel_file, config.candidate_dir)
    query_sets = load_query_sets(tasks, form=config.query_form())
    queries = write_judged_queries(query_sets, folder / "queries")
    texts = {each.name: getattr(config, each.name) for each in fields(TextConfig)}
    texts |= {
        "text_format": ("jsonl", config.text_format[-1]),
        "query_template": None,
        "query_column_names": None,
    }
    rows = evaluate_named(
        EvalConfig(
            **{each.name: getattr(config, each.name) for each in fields(EncodingConfig)},
            **texts,
            checkpoints=(config.from_checkpoint,),
            query_file=tuple(queries),
            candidate_dir=config.candidate_dir,
            qrel_file=config.qrel_file,
            depth=max(config.depth, default=TARGET_DEPTH if config.target_size else DEFAULT_DEPTH),
            metrics=("RR",),
            output_dir=folder,
            devices=config.devices,
        ),
        console,
    )
    if rows[0].state is not State.DONE:
        raise InvalidData(f"--from_checkpoint: {rows[0].reason}")
    return sorted((folder / "runs").iterdir())
