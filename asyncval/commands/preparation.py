"""What the commands that validate share: checks, the data, and what an evaluation is told."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from asyncval.checkpoints import LAYOUT_GROUP, LAYOUTS
from asyncval.checkpoints.recognition import AUTO
from asyncval.config import CollectionConfig, EncodingConfig, TextConfig, ValidationConfig
from asyncval.core.errors import InvalidData, InvalidOption, OutputUnavailable
from asyncval.core.measures import check_depth, parse_measures
from asyncval.core.types import Dtype
from asyncval.data.collection import (
    Collection,
    TaskPlaces,
    load_collection,
    task_in_folder,
    tasks_on_one_corpus,
)
from asyncval.data.sources import digest_of, located
from asyncval.data.texts import check_form
from asyncval.execution.messages import CorpusSetup, WorkerSetup
from asyncval.lookup import look_up
from asyncval.subsets.manifest import manifest_remarks

logger = logging.getLogger(__name__)
PLAN_FORMAT = 1
TASK_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_options(config: ValidationConfig) -> None:
    """Refuse what can be seen to be wrong without reading any data."""
    check_depth(parse_measures(config.metrics), config.depth)
    check_texts(config)
    check_encoding(config)
    positive = {
        "--depth": config.depth,
        "--retrieve_batch_size": config.retrieve_batch_size,
        "--max_num_valid": getattr(config, "max_num_valid", None),
        "--patience": getattr(config, "patience", None),
        "--anchor_every": getattr(config, "anchor_every", None),
    }
    not_negative = {
        "--until_step": getattr(config, "until_step", None),
        "--keep_best": getattr(config, "keep_best", None),
        "--idle_timeout": getattr(config, "idle_timeout", None),
        "--settle": getattr(config, "settle", None),
        "--time_limit": getattr(config, "time_limit", None),
        "--max_pinned_bytes": getattr(config, "max_pinned_bytes", None),
    }
    _check_least(0, not_negative)
    _check_least(1, positive)


def check_encoding(config: EncodingConfig) -> None:
    """Refuse what cannot be meant about an encoder.

    Raises:
        InvalidOption: The message has the flag.
    """
    positive = {
        "--q_max_len": config.q_max_len,
        "--p_max_len": config.p_max_len,
        "--per_device_eval_batch_size": config.per_device_eval_batch_size,
        "--cache_max_bytes": config.cache_max_bytes,
    }
    _check_least(1, positive)
    if config.layout != AUTO:
        look_up(config.layout, LAYOUTS, option="--layout", group=LAYOUT_GROUP)
    asked_dtype(config)


def _check_least(least: int, values: Mapping[str, float | None]) -> None:
    for flag, value in values.items():
        if value is not None and not value >= least:  # nan is none of them
            raise InvalidOption(f"{flag} {value}: give {least} or more.")


def check_texts(config: TextConfig) -> None:
    """Refuse what cannot be meant about texts.

    Raises:
        InvalidOption: The message has the flag.
    """
    if len(config.text_format) not in (1, 2):
        raise InvalidOption(
            f"--text_format {' '.join(config.text_format)}: give one, or one for queries and one "
            "for passages."
        )
    check_form(config.query_form())
    check_form(config.passage_form())


def tasks_of(config: CollectionConfig) -> list[TaskPlaces]:
    """Return the query sets that were asked for, each with its corpus.

    Raises:
        UsageError: They are given in two ways, or in none, or two have the same name.
    """
    given = {
        "--query_file": config.query_file,
        "--candidate_dir": config.candidate_dir,
        "--qrel_file": config.qrel_file,
    }
    if not config.task and not config.tasks:
        missing = [flag for flag, places in given.items() if not places]
        if missing:
            raise InvalidOption(
                f"{missing[0]} is missing: give {', '.join(given)}, or --task NAME=FOLDER."
            )
        return tasks_on_one_corpus(config.query_file, config.qrel_file, config.candidate_dir)
    if any(given.values()):
        raise InvalidOption(
            f"--task has queries, passages and judgements of its own: leave {', '.join(given)} out."
        )
    tasks = [_named_task(each) for each in config.task]
    tasks += [
        TaskPlaces(
            name=each.name,
            queries=each.query_file,
            qrels=each.qrel_file,
            candidates=each.candidate_dir,
        )
        for each in config.tasks
    ]
    names = [task.name for task in tasks]
    for name in names:
        if not TASK_NAME.fullmatch(name) or names.count(name) > 1:
            raise InvalidOption(
                f"--task: {name!r} must be a name of letters, digits, dots, hyphens and "
                "underscores that no other task has."
            )
    return tasks


def _named_task(argument: str) -> TaskPlaces:
    name, equals, folder = argument.partition("=")
    if not equals or not folder:
        raise InvalidOption(f"--task {argument!r}: give NAME=FOLDER.")
    return task_in_folder(name, Path(folder))


def read_collection(config: ValidationConfig, *, output_dir: Path | None) -> Collection:
    """Read and check the data, and say what is in it and what is odd about it.

    Raises:
        UsageError: It cannot be used as given.
    """
    tasks = tasks_of(config)
    collection = load_collection(
        tasks, query_form=config.query_form(), passage_form=config.passage_form()
    )
    if config.write_run == "trec" and output_dir is not None:
        _check_ids(collection)
    _introduce(collection, tasks)
    return collection


def _check_ids(collection: Collection) -> None:
    """Refuse ids that a TREC run could not carry."""
    ids = [query.id for query_set in collection.query_sets for query in query_set.queries]
    ids += [corpus.spaced_id for corpus in collection.corpora.values() if corpus.spaced_id]
    spaced = next((each for each in ids if len(each.split()) != 1), "")
    if spaced:
        raise InvalidData(
            f"The id {spaced!r} has white space, which a TREC run cannot carry: give --write_run "
            "msmarco or none."
        )


def _introduce(collection: Collection, tasks: Sequence[TaskPlaces]) -> None:
    for query_set in collection.query_sets:
        logger.info(
            "%d queries in %s, %d of them judged.",
            len(query_set.queries),
            query_set.path,
            len(query_set.judged),
        )
    for name, corpus in collection.corpora.items():
        logger.info("%d passages%s.", corpus.num_passages, f" for {name}" if name else "")
    qrels: dict[tuple[Path, ...], list[Path]] = {}
    for task in tasks:
        qrels.setdefault(task.candidates, []).append(task.qrels)
    subsets = [each for places in qrels.items() for each in manifest_remarks(*places)]
    for remark in (*collection.remarks, *subsets):
        logger.warning(remark)


def device_name(name: str) -> str:
    """Return a device as we call it: `cpu`, `cuda:N`, or `auto` for the best there is."""
    if name in ("auto", "cpu"):
        return name
    index = name.removeprefix("cuda:")
    if not index.isdecimal():
        raise InvalidOption(f"--devices: {name!r} is no device: give cpu, 0 or cuda:0.")
    return f"cuda:{int(index)}"


def asked_dtype(config: EncodingConfig) -> Dtype:
    """Return the precision that was asked for, in whichever spelling.

    Raises:
        InvalidOption: Two flags ask for different ones.
    """
    said: dict[str, Dtype] = {"--dtype": config.dtype} if config.dtype else {}
    if config.fp16:
        said["--fp16"] = "fp16"
    if config.bf16:
        said["--bf16"] = "bf16"
    if len(set(said.values())) > 1:
        raise InvalidOption(f"{' and '.join(said)} exclude each other: give one precision.")
    return next(iter(said.values()), "fp32")


def require_writable(folder: Path, *, option: str) -> None:
    """Make a folder that will be written to, if it is not there.

    Raises:
        OutputUnavailable: It cannot be written.
    """
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OutputUnavailable(f"{option}: {str(folder)!r} cannot be written.")


def worker_setup(
    config: ValidationConfig, collection: Collection, *, output_dir: Path | None
) -> WorkerSetup:
    """Return what an evaluation is told.

    Raises:
        OutputUnavailable: The cache folder cannot be written.
    """
    require_writable(config.cache_dir, option="--cache_dir")
    return WorkerSetup(
        query_names=[each.name for each in collection.query_sets],
        query_files=[located(each.path) for each in collection.query_sets],
        qrel_files=[located(each.qrels_path) for each in collection.query_sets],
        qrel_digests=[digest_of([each.qrels_path]) for each in collection.query_sets],
        query_digests=[each.digest for each in collection.query_sets],
        query_corpora=[each.corpus for each in collection.query_sets],
        corpora={
            name: CorpusSetup(files=list(map(located, corpus.files)), digest=corpus.digest)
            for name, corpus in collection.corpora.items()
        },
        query_form=config.query_form(),
        passage_form=config.passage_form(),
        measures=[str(measure) for measure in parse_measures(config.metrics)],
        depth=config.depth,
        options=replace(
            config.encoder_options(),
            query_template=config.query_template,
            doc_template=config.doc_template,
        ),
        dtype=asked_dtype(config),
        batch_size=config.per_device_eval_batch_size,
        queries_at_once=config.retrieve_batch_size,
        search_backend=config.search_backend,
        cache_dir=str(config.cache_dir.absolute()),
        cache_max_bytes=config.cache_max_bytes,
        output_dir=str(output_dir.absolute()) if output_dir else None,
        write_run=config.write_run,
        write_embeddings=config.write_embeddings,
    )


def describe_plan(setup: WorkerSetup, precision: str) -> dict[str, Any]:
    """Describe everything that a result depends on besides the checkpoint."""
    return {
        "format": PLAN_FORMAT,
        "queries": setup.query_digests,
        "qrels": setup.qrel_digests,
        "query_sets": setup.query_names,
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
