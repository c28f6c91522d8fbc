"""Puts the parts together: a configuration becomes adapters and services, and they run."""

import json
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from asyncval.alarm import Alarm
from asyncval.checkpoints.pins import PinStore, pin_root
from asyncval.clock import SystemClock
from asyncval.config import (
    EncodingConfig,
    EvalConfig,
    ExplainConfig,
    FidelityConfig,
    ResultsConfig,
    RetryConfig,
    SplitConfig,
    StatusConfig,
    ValidationConfig,
    WatchConfig,
)
from asyncval.core.discovery import CHECKPOINT_NAME, compile_pattern
from asyncval.core.errors import InvalidData, InvalidOption, NothingToDo, OutputUnavailable
from asyncval.core.measures import check_depth, parse_measures
from asyncval.core.ports import Clock, Reporter
from asyncval.core.records import as_record, current, plan_digest
from asyncval.core.types import ANCHOR, MAIN, State, Validation
from asyncval.daemon import WAKE, Daemon, Lane, Limits
from asyncval.data.collection import Collection, load_collection, load_query_sets
from asyncval.data.files import digest_of
from asyncval.evaluation import Evaluation, evaluate_all, quiet_libraries
from asyncval.execution.local import LocalExecutor, device_environment
from asyncval.execution.messages import WorkerSetup
from asyncval.explanation import explain_folder
from asyncval.fidelity import (
    Results,
    as_json,
    compare_folders,
    render_fidelity,
    with_agreement,
)
from asyncval.fidelity_plot import draw
from asyncval.ledger.lock import OutputLock
from asyncval.ledger.sqlite import Ledger
from asyncval.lookup import look_up
from asyncval.manifest import manifest_remarks
from asyncval.options import as_yaml
from asyncval.reporters import REPORTERS
from asyncval.reporting import Reporting
from asyncval.split_screen import SplitScreen, summary
from asyncval.splitter import DEFAULT_DEPTH, Choice, split, write_judged_queries
from asyncval.ui import EvalScreen, LiveScreen, PlainScreen, results_table, set_up_logging
from asyncval.watcher import Habits, Watcher

logger = logging.getLogger(__name__)
PLAN_FORMAT = 1
PLAIN_WIDTH = 200
ALWAYS = ("jsonl", "best")
"""The reporters that write into the output folder, whatever else is asked for."""
TARGET_DEPTH = 1000
"""How deep a checkpoint is searched where the depth of the subset is still to be found."""


def watch(config: WatchConfig) -> int:
    """Run the daemon until it ends; return its exit code."""
    console = Console(stderr=True)
    set_up_logging(console)
    _check(config)
    devices = [_device(name) for name in config.devices]
    if len(set(devices)) < len(devices):
        raise InvalidOption(f"--devices: {' '.join(config.devices)} names a device twice.")
    _reporter_names(config.report_to)
    lock = OutputLock(config.output_dir)
    inbox: SimpleQueue[Any] = SimpleQueue()
    executor = LocalExecutor(devices, post=inbox.put, log_folder=config.output_dir / "logs")
    try:
        collection = load_collection(
            query_files=config.query_file,
            qrel_files=config.qrel_file,
            candidates=config.candidate_dir,
        )
        _check_ids(collection, config)
        _introduce(collection, config)
        (config.output_dir / "config.yaml").write_text(as_yaml(config), encoding="utf-8")
        setups = {MAIN: _worker_setup(config, collection, output_dir=config.output_dir)}
        if config.anchor_every is not None:
            setups[ANCHOR] = _anchor_setup(config)
        ready = executor.set_up(setups)
        if ready["note"]:
            logger.warning(ready["note"])
        clock = SystemClock()
        lanes: dict[str, Lane] = {}
        for name, setup in setups.items():
            lanes[name] = _lane(
                config, name, setup, ready["precision"], main=lanes.get(MAIN), clock=clock
            )
        logger.info("Watching %s in %s.", config.ckpts_dir, ready["precision"])
        pins = PinStore(pin_root(config.ckpts_dir, config.output_dir), method=config.pin)
        habits = Habits(
            pattern=compile_pattern(config.ckpt_pattern)
            if config.ckpt_pattern
            else CHECKPOINT_NAME,
            sentinel=config.sentinel,
            settle_seconds=config.settle,
        )
        screen = LiveScreen(console) if console.is_terminal else PlainScreen()
        daemon = Daemon(
            watcher=Watcher(root=config.ckpts_dir, habits=habits, pins=pins, clock=clock),
            pins=pins,
            alarm=Alarm(config.ckpts_dir, lambda: inbox.put(WAKE), enabled=not config.no_inotify),
            lanes=lanes,
            executor=executor,
            screen=screen,
            inbox=inbox,
            limits=Limits(
                max_num_valid=config.max_num_valid,
                until_step=config.until_step,
                done_file=config.done_file,
                idle_timeout=config.idle_timeout,
                time_limit=config.time_limit,
                max_pinned_bytes=config.max_pinned_bytes,
            ),
            clock=clock,
        )
        try:
            return daemon.run()
        finally:
            if isinstance(screen, LiveScreen):
                screen.close()
            for lane in lanes.values():
                lane.ledger.close()
    finally:
        executor.stop()
        lock.release()


def _anchor_setup(config: WatchConfig) -> WorkerSetup:
    """Return how anchors are validated: as the others, on another corpus, in their own folder."""
    if not config.anchor_candidate_dir:
        raise InvalidOption("--anchor_every needs --anchor_candidate_dir, the full corpus.")
    full = load_collection(
        query_files=config.query_file,
        qrel_files=config.qrel_file,
        candidates=config.anchor_candidate_dir,
    )
    logger.info("%d passages for every anchor.", full.corpus.num_passages)
    return _worker_setup(config, full, output_dir=config.output_dir / ANCHOR)


def _lane(
    config: WatchConfig,
    name: str,
    setup: WorkerSetup,
    precision: str,
    *,
    main: Lane | None,
    clock: Clock,
) -> Lane:
    """Open the ledger of a lane and its reporters; `main` is None for the main lane itself."""
    folder = config.output_dir if main is None else config.output_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    run_name = config.run_name if main is None else f"{config.run_name}-{name}"
    logging_dir = config.logging_dir or config.output_dir / "tensorboard"
    ledger = Ledger(folder, clock=clock, lane=name)
    description = _plan(setup, precision)
    plan = plan_digest(description)
    ledger.use_plan(plan, description)
    return Lane(
        ledger=ledger,
        plan=plan,
        reporting=Reporting(
            ledger,
            {
                each: _reporter(each, folder, logging_dir, run_name)
                for each in _reporter_names(config.report_to)
            },
            plan=plan,
            derive=lambda rows: with_agreement(rows, main.validations()) if main else rows,
        ),
        every=1 if main is None else config.anchor_every or 1,
    )


def evaluate(config: EvalConfig) -> int:
    """Validate the named checkpoints and print what came of it."""
    console = Console(stderr=True)
    set_up_logging(console)
    rows = _evaluated(config, console)
    _print_rows(rows, as_json=config.json)
    failed = [row for row in rows if row.state is State.FAILED]
    for row in failed:
        logger.error("%s failed: %s", row.checkpoint.name, row.reason)
    return 4 if failed else 0


def _evaluated(config: EvalConfig, console: Console) -> list[Validation]:
    """Validate the named checkpoints and return what came of it."""
    _check(config)
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
    device = _device(config.devices[0])
    os.environ.update(device_environment(device))
    quiet_libraries()
    collection = load_collection(
        query_files=config.query_file, qrel_files=config.qrel_file, candidates=config.candidate_dir
    )
    _check_ids(collection, config)
    _introduce(collection, config)
    setup = _worker_setup(config, collection, output_dir=config.output_dir)
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


def split_corpus(config: SplitConfig) -> int:
    """Make a corpus subset and say what is in it."""
    console = Console(stderr=True)
    set_up_logging(console)
    signal.signal(signal.SIGTERM, _leave)
    with TemporaryDirectory(prefix="asyncval-split-") as folder:
        runs = _runs_of_checkpoint(config, Path(folder), console)
        with SplitScreen(console, clock=SystemClock()) as screen:
            done = split(
                candidates=config.candidate_dir,
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
    queries = write_judged_queries(
        load_query_sets(config.query_file, config.qrel_file), folder / "queries"
    )
    rows = _evaluated(
        EvalConfig(
            **{each.name: getattr(config, each.name) for each in fields(EncodingConfig)},
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
        _wide_console().print(part)
    return 0


def _results(output_dir: Path) -> Results:
    with _opened(output_dir) as ledger:
        plan = ledger.newest_plan() or ""
        rows = current(ledger.validations(plan=plan))
        return Results(output_dir, rows, ledger.plan_description(plan))


def results(config: ResultsConfig) -> int:
    """Print the table of results, or the same as JSON."""
    _print_rows(_rows(config.output_dir), as_json=config.json)
    return 0


def status(config: StatusConfig) -> int:
    """Print what waits, runs and failed."""
    rows = _rows(config.output_dir)
    counts = {str(state): sum(row.state is state for row in rows) for state in State}
    open_rows = [row for row in rows if row.state is not State.DONE]
    if config.json:
        entries = [as_record(row) for row in open_rows]
        print(json.dumps({"counts": counts, "checkpoints": entries}, indent=2))
        return 0
    print(
        ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nothing yet"
    )
    for row in open_rows:
        reason = f": {row.reason}" if row.reason else ""
        print(f"{row.checkpoint.name}  {row.state}{reason}")
    return 0


def retry(config: RetryConfig) -> int:
    """Queue what failed or was skipped anew; a daemon that runs takes it up by itself."""
    set_up_logging(Console(stderr=True))
    with _opened(config.output_dir) as ledger:
        plan = ledger.newest_plan()
        num_queued = ledger.retry_failed(plan=plan) if plan else 0
    if not num_queued:
        raise NothingToDo("Nothing failed or was skipped.")
    logger.info("%d checkpoints are queued again.", num_queued)
    return 0


def explain(config: ExplainConfig) -> int:
    """Say of each folder whether it is a checkpoint, and which rule decided."""
    reports = [explain_folder(path, sentinel=config.sentinel) for path in config.paths]
    if config.json:
        print(json.dumps(reports, indent=2))
        return 0
    for report in reports:
        for key, value in report.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"{key + ':':<14}{shown}")
        print()
    return 0


@contextmanager
def _opened(output_dir: Path) -> Iterator[Ledger]:
    ledger = Ledger(output_dir, clock=SystemClock(), must_exist=True)
    try:
        yield ledger
    finally:
        ledger.close()


def _rows(output_dir: Path) -> list[Validation]:
    with _opened(output_dir) as ledger:
        plan = ledger.newest_plan()
        return current(ledger.validations(plan=plan)) if plan else []


def _print_rows(rows: Sequence[Validation], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([as_record(row) for row in rows], indent=2))
        return
    if not rows:
        raise NothingToDo("No checkpoint has been found yet.")
    _wide_console().print(results_table(rows))


def _wide_console() -> Console:
    """Return standard output; a pipe has no width, and what reads it wants whole lines."""
    console = Console()
    return Console(width=None if console.is_terminal else PLAIN_WIDTH)


def _check(config: ValidationConfig) -> None:
    """Refuse what can be seen to be wrong without reading any data."""
    check_depth(parse_measures(config.metrics), config.depth)
    positive = {
        "--depth": config.depth,
        "--q_max_len": config.q_max_len,
        "--p_max_len": config.p_max_len,
        "--per_device_eval_batch_size": config.per_device_eval_batch_size,
        "--retrieve_batch_size": config.retrieve_batch_size,
        "--max_num_valid": getattr(config, "max_num_valid", None),
    }
    for flag, value in positive.items():
        if value is not None and value < 1:
            raise InvalidOption(f"{flag} {value}: give 1 or more.")
    if config.fp16 and config.bf16:
        raise InvalidOption("--fp16 and --bf16 exclude each other: give one.")


def _check_ids(collection: Collection, config: ValidationConfig) -> None:
    """Refuse ids that the run file could not carry."""
    if config.write_run != "trec" or getattr(config, "output_dir", None) is None:
        return
    ids = [query.id for query_set in collection.query_sets for query in query_set.queries]
    spaced = next((each for each in ids if len(each.split()) != 1), collection.corpus.spaced_id)
    if spaced:
        raise InvalidData(
            f"The id {spaced!r} has white space, which a TREC run cannot carry: give --write_run "
            "msmarco or none."
        )


def _introduce(collection: Collection, config: ValidationConfig) -> None:
    """Say what was read, and what is odd about it."""
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


def _device(name: str) -> str:
    if name in ("auto", "cpu"):
        return name
    index = name.removeprefix("cuda:")
    if not index.isdecimal():
        raise InvalidOption(f"--devices: {name!r} is no device: give cpu, 0 or cuda:0.")
    return f"cuda:{int(index)}"


def _reporter_names(names: Sequence[str]) -> list[str]:
    """Return the reporters that were asked for, and those that always write."""
    wanted = [name for name in names if name != "none"]
    for name in wanted:
        look_up(name, REPORTERS, option="--report_to")
    return list(dict.fromkeys([*ALWAYS, *wanted]))


def _reporter(name: str, output_dir: Path, logging_dir: Path, run_name: str) -> Reporter:
    reporter: Reporter = look_up(name, REPORTERS, option="--report_to")(
        output_dir=output_dir, logging_dir=logging_dir, run_name=run_name
    )
    return reporter


def _worker_setup(
    config: ValidationConfig, collection: Collection, *, output_dir: Path | None
) -> WorkerSetup:
    with suppress(OSError):
        config.cache_dir.mkdir(parents=True, exist_ok=True)
    if not os.access(config.cache_dir, os.W_OK):
        raise OutputUnavailable(f"--cache_dir: {str(config.cache_dir)!r} cannot be written.")
    return WorkerSetup(
        query_files=[str(each.path.absolute()) for each in collection.query_sets],
        qrel_files=[str(each.qrels_path.absolute()) for each in collection.query_sets],
        passage_files=[str(path.absolute()) for path in collection.corpus.files],
        query_digests=[digest_of([each.path]) for each in collection.query_sets],
        corpus_digest=collection.corpus.digest,
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


def _plan(setup: WorkerSetup, precision: str) -> dict[str, Any]:
    """Describe everything that a result depends on besides the checkpoint."""
    return {
        "format": PLAN_FORMAT,
        "queries": setup.query_digests,
        "qrels": [digest_of([Path(path)]) for path in setup.qrel_files],
        "query_sets": [Path(path).name for path in setup.query_files],
        "corpus": setup.corpus_digest,
        "encoding": asdict(setup.options),
        "precision": precision,
        "depth": setup.depth,
        "measures": setup.measures,
    }
