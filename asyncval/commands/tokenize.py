"""`asyncval tokenize`: what the first checkpoint would wait for, done ahead of time."""

import logging

from rich.console import Console

from asyncval.clock import SystemClock
from asyncval.commands.preparation import check_options, read_collection, worker_setup
from asyncval.config import TokenizeConfig
from asyncval.core.errors import InvalidOption
from asyncval.evaluation import Evaluation, tame_libraries
from asyncval.ui import EvalScreen, set_up_logging

logger = logging.getLogger(__name__)


def tokenize(config: TokenizeConfig) -> int:
    """Tokenise queries and passages into the cache."""
    console = Console(stderr=True)
    set_up_logging(console)
    check_options(config)
    if config.checkpoint is None and config.tokenizer_name_or_path is None:
        raise InvalidOption("Give a checkpoint, or a tokenizer with --tokenizer_name_or_path.")
    if config.checkpoint is not None and not config.checkpoint.is_dir():
        raise InvalidOption(f"CKPT: there is no folder {str(config.checkpoint)!r}.")
    tame_libraries()
    collection = read_collection(config, output_dir=None)
    evaluation = Evaluation(worker_setup(config, collection, output_dir=None), device="cpu")
    clock = SystemClock()
    with EvalScreen(console) as screen:
        number = evaluation.tokenize(
            config.checkpoint,
            listener=lambda progress: screen.show("", progress, now=clock.monotonic()),
        )
    logger.info("%d texts are tokenised in %s.", number, config.cache_dir)
    return 0
