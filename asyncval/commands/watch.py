"""`asyncval watch`: the daemon."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from re import Pattern
from typing import Any

from rich.console import Console

from asyncval.alarm import REMOTE, file_system_of
from asyncval.checkpoints.pins import PinStore, pin_root
from asyncval.clock import SystemClock
from asyncval.commands.preparation import (
    check_options,
    describe_plan,
    device_name,
    read_collection,
    worker_setup,
)
from asyncval.config import WatchConfig
from asyncval.core.discovery import CHECKPOINT_NAME, compile_pattern, step_in_name
from asyncval.core.errors import InvalidOption, OutputUnavailable
from asyncval.core.ports import Clock, Reporter
from asyncval.core.records import first_open_step, plan_digest
from asyncval.core.types import ANCHOR, MAIN
from asyncval.daemon import WAKE, Daemon, Lane, Limits, Screen
from asyncval.data.collection import load_collection, tasks_on_one_corpus
from asyncval.execution.local import LocalExecutor
from asyncval.execution.messages import WorkerSetup
from asyncval.keeping import Keeping, drop_link
from asyncval.ledger.lock import OutputLock
from asyncval.ledger.sqlite import Ledger
from asyncval.lookout import Lookout
from asyncval.lookup import look_up
from asyncval.options import as_yaml
from asyncval.outputs import remove_partials
from asyncval.reporters import REPORTER_GROUP, REPORTERS
from asyncval.reporters.stop import StopReporter
from asyncval.reporting import Reporting
from asyncval.subsets.fidelity import with_agreement
from asyncval.ui import LiveScreen, PlainScreen, set_up_logging
from asyncval.watcher import Habits, Watcher

logger = logging.getLogger(__name__)
ALWAYS = ("jsonl", "best")
"""The reporters that write into the output folder, whatever else is asked for."""


def watch(config: WatchConfig) -> int:
    """Run the daemon until it ends; return its exit code."""
    console = Console(stderr=True)
    set_up_logging(console)
    check_options(config)
    pattern = compile_pattern(config.ckpt_pattern) if config.ckpt_pattern else CHECKPOINT_NAME
    # One folder by two spellings is one; a link that comes later is followed as it is.
    config = replace(config, ckpts_dir=config.ckpts_dir.resolve())
    devices = [device_name(name) for name in config.devices]
    if len(set(devices)) < len(devices):
        raise InvalidOption(f"--devices: {' '.join(config.devices)} names a device twice.")
    _reporter_names(config.report_to)
    _check_folders(config)
    lock = OutputLock(config.output_dir)
    _remove_partials(config.output_dir)
    inbox: SimpleQueue[Any] = SimpleQueue()
    executor = LocalExecutor(devices, post=inbox.put, log_folder=config.output_dir / "logs")
    try:
        collection = read_collection(config, output_dir=config.output_dir)
        _save(config)
        setups = {MAIN: worker_setup(config, collection, output_dir=config.output_dir)}
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
        screen = LiveScreen(console) if console.is_terminal else PlainScreen()
        try:
            daemon = _daemon(
                config, lanes, executor, screen, pattern=pattern, inbox=inbox, clock=clock
            )
            return daemon.run()
        finally:
            screen.close()
            for lane in lanes.values():
                lane.ledger.close()
    finally:
        executor.stop()
        _remove_partials(config.output_dir)
        lock.release()


def _remove_partials(output_dir: Path) -> None:
    """Remove what evaluation processes left half-written, before they start and when all ended."""
    with suppress(OSError):
        for folder in (output_dir, output_dir / ANCHOR):
            remove_partials(folder)


def _daemon(
    config: WatchConfig,
    lanes: Mapping[str, Lane],
    executor: LocalExecutor,
    screen: Screen,
    *,
    pattern: Pattern[str],
    inbox: "SimpleQueue[Any]",
    clock: Clock,
) -> Daemon:
    """Put the parts together that find and keep checkpoints."""
    pins = PinStore(pin_root(config.ckpts_dir, config.output_dir), method=config.pin)
    habits = Habits(
        pattern=pattern,
        sentinel=config.sentinel,
        settle_seconds=config.settle,
        layout=config.layout,
    )
    limits = Limits(
        max_num_valid=config.max_num_valid,
        until_step=config.until_step,
        done_file=config.done_file,
        idle_timeout=config.idle_timeout,
        time_limit=config.time_limit,
        max_pinned_bytes=config.max_pinned_bytes,
    )
    return Daemon(
        lookout=Lookout(
            Watcher(root=config.ckpts_dir, habits=habits, pins=pins, clock=clock),
            pins,
            wake=lambda: inbox.put(WAKE),
            events=not config.no_inotify,
            scan_seconds=limits.scan_seconds,
            one_by_one=limits.max_pinned_bytes is not None,
        ),
        pins=pins,
        lanes=lanes,
        executor=executor,
        screen=screen,
        keeping=_keeping(config, lanes[MAIN]),
        inbox=inbox,
        limits=limits,
        clock=clock,
    )


def _keeping(config: WatchConfig, main: Lane) -> Keeping | None:
    if not config.keep_best:
        drop_link(config.output_dir)
        return None
    number, folder = config.keep_best, config.output_dir
    return Keeping(main.ledger, plan=main.plan, output_dir=folder, number=number)


def _check_folders(config: WatchConfig) -> None:
    """Refuse, or say, what is probably not meant."""
    watched, output = config.ckpts_dir.resolve(), config.output_dir.resolve()
    if config.ckpts_dir.exists() and not config.ckpts_dir.is_dir():
        raise InvalidOption(f"--ckpts_dir: {str(config.ckpts_dir)!r} is no folder.")
    if watched == output:
        raise InvalidOption(
            f"--output_dir: {str(config.output_dir)!r} is the folder of the checkpoints, which is "
            "the trainer's alone: give another one."
        )
    if watched in output.parents:
        logger.warning(
            "--output_dir is inside --ckpts_dir: what is written there lies among the "
            "trainer's own files."
        )
    if (watched / "config.json").exists() and step_in_name(watched.name) is not None:
        logger.warning(
            "--ckpts_dir %s looks like a checkpoint itself: give the folder above it.",
            config.ckpts_dir,
        )


def _save(config: WatchConfig) -> None:
    path = config.output_dir / "config.yaml"
    try:
        path.write_text(as_yaml(config), encoding="utf-8")
    except OSError as error:
        raise OutputUnavailable(
            f"--output_dir: {str(path)!r} cannot be written: {error.strerror}."
        ) from error


def _anchor_setup(config: WatchConfig) -> WorkerSetup:
    """Return how anchors are validated: as the others, on another corpus, in their own folder."""
    if not config.anchor_candidate_dir:
        raise InvalidOption("--anchor_every needs --anchor_candidate_dir, the full corpus.")
    if config.task or config.tasks:
        raise InvalidOption("--anchor_every is for one corpus, so it cannot go with --task.")
    full = load_collection(
        tasks_on_one_corpus(config.query_file, config.qrel_file, config.anchor_candidate_dir),
        query_form=config.query_form(),
        passage_form=config.passage_form(),
    )
    logger.info("%d passages for every anchor.", full.corpora[""].num_passages)
    return worker_setup(config, full, output_dir=config.output_dir / ANCHOR)


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
    is_remote = file_system_of(folder.resolve()).startswith(REMOTE)
    ledger = Ledger(folder, clock=clock, lane=name, is_remote=is_remote)
    description = describe_plan(setup, precision) | {"checkpoints": str(config.ckpts_dir)}
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
            }
            | _stop_reporter(config, folder, ledger, plan),
            plan=plan,
            clock=clock,
            derive=lambda rows: with_agreement(rows, main.validations()) if main else rows,
        ),
        every=1 if main is None else config.anchor_every or 1,
    )


def _stop_reporter(
    config: WatchConfig, folder: Path, ledger: Ledger, plan: str
) -> dict[str, Reporter]:
    if config.patience is None or folder != config.output_dir:
        return {}
    return {
        "stop": StopReporter(
            output_dir=folder,
            patience=config.patience,
            first_open_step=lambda: first_open_step(ledger.validations(plan=plan)),
        )
    }


def _reporter_names(names: Sequence[str]) -> list[str]:
    """Return the reporters that were asked for, and those that always write."""
    wanted = [name for name in names if name != "none"]
    for name in wanted:
        look_up(name, REPORTERS, option="--report_to", group=REPORTER_GROUP)
    return list(dict.fromkeys([*ALWAYS, *wanted]))


def _reporter(name: str, output_dir: Path, logging_dir: Path, run_name: str) -> Reporter:
    kind = look_up(name, REPORTERS, option="--report_to", group=REPORTER_GROUP)
    try:
        reporter: Reporter = kind(output_dir=output_dir, logging_dir=logging_dir, run_name=run_name)
    except TypeError as error:
        raise InvalidOption(
            f"--report_to: {name!r} cannot be made: {error}. A reporter is a class that takes "
            "output_dir, logging_dir and run_name."
        ) from error
    return reporter
