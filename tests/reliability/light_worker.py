"""An evaluation process whose numbers are a digest of what it read, and that misbehaves on demand.

LIGHT_SECONDS is how long an evaluation takes. LIGHT_DEEDS maps a step, in JSON, to `hang`,
`exit`, `bus` (a file that shrinks under a memory map), `kill` (as the kernel does when memory
is out), `mute` (killed in the middle of an answer), or `memory` (an error of ours, until batches
were made smaller twice). With LIGHT_SURVIVES=1 it outlives its daemon. While there is a file
LIGHT_REFUSES, it cannot start, and while there is a file LIGHT_HANGS, it never gets ready.
"""

import errno
import json
import mmap
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.core.types import Job, Result
from asyncval.execution.messages import job_from_json, result_to_values, setups_from_json
from asyncval.worker import Say, die_with, take_over_stdout

DIGITS = 13
ANSWERS = 99
"""A descriptor of the stream of answers."""


def measure(location: Path) -> dict[str, float]:
    """Return numbers that differ as soon as one byte of the files differs."""
    return metrics_of(fingerprint(location, Folder.listing(location).files))


def metrics_of(digest: str) -> dict[str, float]:
    """Return the numbers of the content with this fingerprint."""
    parts = (digest[:DIGITS], digest[DIGITS : 2 * DIGITS])
    values = [int(part, 16) / 16**DIGITS for part in parts]
    return dict(zip(("RR@10", "nDCG@10"), values, strict=True))


def misbehave(deed: str) -> None:
    if deed == "hang":
        time.sleep(3600)
    elif deed == "exit":
        os._exit(1)
    elif deed == "mute":
        os.write(ANSWERS, b'{"kind": "done", "jo')
        os._exit(1)
    elif deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "bus":
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 65536)
            file.flush()
            with mmap.mmap(file.fileno(), 65536) as view:
                file.truncate(0)
                view[40000]


def serve(job: Job, say: Say, *, output_dir: str) -> None:
    deeds: dict[str, str] = json.loads(os.environ.get("LIGHT_DEEDS", "{}"))
    deed = deeds.get(str(job.checkpoint.step), "")
    say("progress", job=job.id, phase="encode", done=0, total=1)
    if deed == "memory" and job.shrink < 2:
        say("failed", job=job.id, reason="Out of memory.", cause="memory")
        return
    misbehave(deed)
    try:
        before = measure(job.checkpoint.location)
        time.sleep(float(os.environ.get("LIGHT_SECONDS", "0")))
        metrics = measure(job.checkpoint.location)
        write_run(Path(output_dir), job.checkpoint.name, metrics)
    except Exception as error:
        is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        cause = "disk" if is_full else ""
        say("failed", job=job.id, reason=f"{type(error).__name__}: {error}", cause=cause)
        return
    assert before.keys() == metrics.keys()
    seconds = {"load": 0.0, "total": 0.001}
    result = Result(metrics=metrics, dimension=16, seconds=seconds, num_texts=50)
    say("done", job=job.id, result=result_to_values(result))


def write_run(folder: Path, name: str, metrics: dict[str, Any]) -> None:
    from asyncval.data.runs import write_run as write

    (folder / "runs").mkdir(exist_ok=True)
    lines = [("q0", "p0", 1, str(metrics["RR@10"]))]
    write(iter(lines), folder / "runs" / f"{name}.trec", run_type="trec", tag="light")


def main() -> None:
    device, daemon = sys.argv[1], int(sys.argv[2])
    if not os.environ.get("LIGHT_SURVIVES"):
        die_with(daemon)
    os.dup2(sys.stdout.fileno(), ANSWERS)
    say = take_over_stdout()
    line = sys.stdin.readline()
    if not line:
        return
    if Path(os.environ.get("LIGHT_REFUSES", "nowhere")).exists():
        say("refused", reason="The device is gone.")
        return
    if Path(os.environ.get("LIGHT_HANGS", "nowhere")).exists():
        misbehave("hang")
    setup = setups_from_json(line)["main"]
    say("ready", device=device, precision="fp32", note="")
    for line in sys.stdin:
        serve(job_from_json(line), say, output_dir=setup.output_dir or "")


if __name__ == "__main__":
    main()
