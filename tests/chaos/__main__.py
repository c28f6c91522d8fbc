"""Runs schedules and prints a table.

`python -m tests.chaos --schedules 25 --seed 0 --jobs 2`
"""

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import get_args

from asyncval import __version__
from tests.chaos.invariants import Report
from tests.chaos.pool import make_pool
from tests.chaos.runner import can_mount, run_one
from tests.chaos.schedules import Deed, make_schedule

DEEDS = get_args(Deed)
REAL_EVERY = 20
"""Of schedules with mixed evaluators, one in so many has the real one."""


def evaluator_of(seed: int, wanted: str) -> str:
    """Return which evaluator a schedule has."""
    if wanted != "mixed":
        return wanted
    return "light" if seed % REAL_EVERY else "real"


def choose_seeds(options: argparse.Namespace) -> list[int]:
    """Return the seeds of the schedules that are wanted."""
    seeds = range(options.seed, options.seed + options.schedules)
    return [
        seed
        for seed in seeds
        if not options.only or make_schedule(seed, can_fill_disk=True).count(options.only)
    ]


def main() -> int:
    """Run schedules; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--schedules", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow")
    parser.add_argument("--jobs", type=int, default=1, help="how many run at a time")
    parser.add_argument("--evaluator", choices=("light", "real", "mixed"), default="mixed")
    parser.add_argument("--only", choices=DEEDS, help="only schedules in which this happens")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="asyncval-chaos-"))
    pool = make_pool(work / "pool", real=options.evaluator != "light")
    can_fill_disk = can_mount()
    began = time.monotonic()
    reports = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as processes:
        seeds = choose_seeds(options)
        runs = [
            processes.submit(
                run_one,
                seed,
                pool,
                work,
                evaluator=evaluator_of(seed, options.evaluator),
                can_fill_disk=can_fill_disk,
            )
            for seed in seeds
        ]
        for run in as_completed(runs):
            reports.append(run.result())
            _tell(reports[-1], len(reports), len(runs))
    _print_table(reports, options, seconds=time.monotonic() - began, can_fill_disk=can_fill_disk)
    failed = [report for report in reports if report.violations]
    if not failed:
        shutil.rmtree(work)
        return 0
    print(f"The folders of those that failed are in {work}.")
    return 1


def _tell(report: Report, number: int, total: int) -> None:
    if sys.stderr.isatty() or report.violations:
        result = "; ".join(report.violations) or "ok"
        print(f"{number}/{total} seed {report.seed}: {result}", file=sys.stderr, flush=True)


def _print_table(
    reports: list[Report], options: argparse.Namespace, *, seconds: float, can_fill_disk: bool
) -> None:
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.counts)
    failed = sorted(report.seed for report in reports if report.violations)
    last = options.seed + options.schedules - 1
    only = f", those with {options.only!r}" if options.only else ""
    print(f"asyncval {__version__}: seeds {options.seed} to {last}{only}")
    rows = {
        "schedules": len(reports),
        **counts,
        "seconds": round(seconds),
        "schedules that broke a promise": len(failed),
    }
    for name, number in rows.items():
        print(f"{name:<32}{number:>8}")
    if not can_fill_disk:
        print("full disks were left out: they need root")
    print(f"seeds of failures: {', '.join(map(str, failed)) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
