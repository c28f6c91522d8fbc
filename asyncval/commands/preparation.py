"""What the commands that validate share: checks, the data, and what an evaluation is told."""

import logging
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asyncval.checkpoints import LAYOUTS
from asyncval.checkpoints.recognition import AUTO
from asyncval.config import ValidationConfig
from asyncval.core.errors import InvalidData, InvalidOption, OutputUnavailable
from asyncval.core.measures import check_depth, parse_measures
from asyncval.data.collection import Collection, load_collection
from asyncval.data.files import digest_of
from asyncval.execution.messages import CorpusSetup, WorkerSetup
from asyncval.lookup import look_up
from asyncval.subsets.manifest import manifest_remarks

logger = logging.getLogger(__name__)
PLAN_FORMAT = 1


def check_options(config: ValidationConfig) -> None:
    """Refuse what can be seen to be wrong without reading any data."""
    check_depth(parse_measures(config.metrics), config.depth)
    positive = {
        "--depth": config.depth,
        "--q_max_len": config.q_max_len,
        "--p_max_len": config.p_max_len,
        "--per_device_eval_batch_size": config.per_device_eval_batch_size,
        "--retrieve_batch_size": config.retrieve_batch_size,
        "--max_num_valid": getattr(config, "max_num_valid", None),
        "--patience": getattr(config, "patience", None),
    }
    for flag, value in positive.items():
        if value is not None and value < 1:
            raise InvalidOption(f"{flag} {value}: give 1 or more.")
    if config.layout != AUTO:
        look_up(config.layout, LAYOUTS, option="--layout")
    if config.fp16 and config.bf16:
        raise InvalidOption("--fp16 and --bf16 exclude each other: give one.")


def read_collection(config: ValidationConfig, *, output_dir: Path | None) -> Collection:
    """Read and check the data, and say what is in it and what is odd about it.

    Raises:
        UsageError: It cannot be used as given.
    """
    collection = load_collection(
        query_files=config.query_file, qrel_files=config.qrel_file, candidates=config.candidate_dir
    )
    if config.write_run == "trec" and output_dir is not None:
        _check_ids(collection)
    _introduce(collection, config)
    return collection


def _check_ids(collection: Collection) -> None:
    """Refuse ids that a TREC run could not carry."""
    ids = [query.id for query_set in collection.query_sets for query in query_set.queries]
    spaced = next((each for each in ids if len(each.split()) != 1), collection.corpus.spaced_id)
    if spaced:
        raise InvalidData(
            f"The id {spaced!r} has white space, which a TREC run cannot carry: give --write_run "
            "msmarco or none."
        )


def _introduce(collection: Collection, config: ValidationConfig) -> None:
    for query_set in collection.query_sets:
        logger.info(
            "%d queries in %s, %d of them judged.",
            len(query_set.queries),
            query_set.path,
            len(query_set.judged),
        )
    logger.info("%d passages.", collection.corpus.num_passages)
    for remark in (*collection.remarks, *manifest_remarks(config.candidate_dir, config.qrel_file)):
        logger.warning(remark)


def device_name(name: str) -> str:
    """Return a device as we call it: `cpu`, `cuda:N`, or `auto` for the best there is."""
    if name in ("auto", "cpu"):
        return name
    index = name.removeprefix("cuda:")
    if not index.isdecimal():
        raise InvalidOption(f"--devices: {name!r} is no device: give cpu, 0 or cuda:0.")
    return f"cuda:{int(index)}"


def worker_setup(
    config: ValidationConfig, collection: Collection, *, output_dir: Path | None
) -> WorkerSetup:
    """Return what an evaluation is told.

    Raises:
        OutputUnavailable: The cache folder cannot be written.
    """
    with suppress(OSError):
        config.cache_dir.mkdir(parents=True, exist_ok=True)
    if not os.access(config.cache_dir, os.W_OK):
        raise OutputUnavailable(f"--cache_dir: {str(config.cache_dir)!r} cannot be written.")
    return WorkerSetup(
        query_files=[str(each.path.absolute()) for each in collection.query_sets],
        qrel_files=[str(each.qrels_path.absolute()) for each in collection.query_sets],
        query_digests=[digest_of([each.path]) for each in collection.query_sets],
        query_corpora=[each.corpus for each in collection.query_sets],
        corpora={
            "": CorpusSetup(
                files=[str(path.absolute()) for path in collection.corpus.files],
                digest=collection.corpus.digest,
            )
        },
        measures=[str(measure) for measure in parse_measures(config.metrics)],
        depth=config.depth,
        options=config.encoder_options(),
        fp16=config.fp16,
        bf16=config.bf16,
        batch_size=config.per_device_eval_batch_size,
        queries_at_once=config.retrieve_batch_size,
        cache_dir=str(config.cache_dir.absolute()),
        output_dir=str(output_dir.absolute()) if output_dir else None,
        write_run=config.write_run,
        write_embeddings=config.write_embeddings,
    )


def describe_plan(setup: WorkerSetup, precision: str) -> dict[str, Any]:
    """Describe everything that a result depends on besides the checkpoint."""
    return {
        "format": PLAN_FORMAT,
        "queries": setup.query_digests,
        "qrels": [digest_of([Path(path)]) for path in setup.qrel_files],
        "query_sets": [Path(path).name for path in setup.query_files],
        "corpus": _digests(setup),
        "encoding": asdict(setup.options),
        "precision": precision,
        "depth": setup.depth,
        "measures": setup.measures,
    }


def _digests(setup: WorkerSetup) -> str | dict[str, str]:
    """Return the digest of the corpus, or of each by its name."""
    digests = {name: corpus.digest for name, corpus in setup.corpora.items()}
    return digests[""] if list(digests) == [""] else digests
