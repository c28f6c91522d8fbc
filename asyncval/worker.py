"""The evaluation process of one device: `python -m asyncval.worker DEVICE DAEMON_PID`.

It reads a setup and then jobs from its standard input, and answers on its standard output;
`execution.messages` has the form of both. When its daemon dies, it dies.
"""

import ctypes
import errno
import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from asyncval.clock import SystemClock
from asyncval.core.errors import CheckpointError, DataChanged, UsageError
from asyncval.core.measures import parse_measures
from asyncval.core.types import MAIN, Job, Progress
from asyncval.evaluation import Evaluation, tame_libraries
from asyncval.execution.messages import job_from_json, result_to_values, setups_from_json
from asyncval.retrieval.score import warm_up

logger = logging.getLogger(__name__)
PROGRESS_SECONDS = 0.2
PR_SET_PDEATHSIG = 1
EXIT_LOST_DEVICE = 1
OUT_OF_MEMORY = ("out of memory", "alloc fail", "can't allocate memory")
"""What FAISS and torch's CPU allocator say, whose errors have no class of their own."""
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""What NumPy says of a full disk, without a number of the error."""
Say = Callable[..., None]


def main() -> int:
    """Serve one daemon until its messages end."""
    device, daemon = sys.argv[1], int(sys.argv[2])
    die_with(daemon)
    say = take_over_stdout()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    tame_libraries()
    import torch  # noqa: F401  # while the daemon still reads its data

    line = sys.stdin.readline()
    if not line:
        return 0
    setups = setups_from_json(line)
    try:
        evaluations = {lane: Evaluation(setup, device=device) for lane, setup in setups.items()}
    except UsageError as error:
        say("refused", reason=str(error), is_final=isinstance(error, DataChanged))
        return error.exit_code
    first = evaluations[MAIN]
    say("ready", device=first.device, precision=first.precision, note=first.note)
    measures = parse_measures(setups[MAIN].measures)
    threading.Thread(target=warm_up, args=(measures,), daemon=True).start()
    for line in sys.stdin:
        job = job_from_json(line)
        serve(job, evaluations[job.lane], say)
    return 0


def die_with(daemon: int) -> None:
    """Ask the kernel to kill this process when its daemon ends, in whatever way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != daemon:  # it ended before we asked
        os._exit(1)


def take_over_stdout() -> Say:
    """Keep standard output for messages: what libraries print goes to standard error."""
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def say(kind: str, **values: Any) -> None:  # noqa: ANN401
        with lock:
            messages.write(f"{json.dumps({'kind': kind, **values})}\n")
            messages.flush()

    return say


def serve(job: Job, evaluation: Evaluation, say: Say) -> None:
    """Do one job and say how it ended; whatever goes wrong concerns this checkpoint only."""
    try:
        result = evaluation.run(
            job.checkpoint,
            listener=_throttled(say, job.id),
            shrink=job.shrink,
            dimension=job.dimension,
        )
        say("done", job=job.id, result=result_to_values(result))
    except DataChanged as error:
        say("refused", reason=str(error), is_final=True)
    except (CheckpointError, UsageError) as error:
        say("failed", job=job.id, reason=str(error))
    except Exception as error:
        logger.exception("%s failed.", job.checkpoint.name)
        cause = cause_of(error)
        if "CUDA error" in str(error) and cause != "memory":
            # The device is lost to this process, and so would be all checkpoints after this one.
            os._exit(EXIT_LOST_DEVICE)
        reason = f"{type(error).__name__}: {error}"
        say("failed", job=job.id, reason=reason, cause=cause)


def cause_of(error: Exception) -> str:
    """Return what the daemon can do something about: memory, the disk, or nothing known."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "memory"
    if isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY):
        return "memory"
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "disk" if is_full or SHORT_WRITE.search(str(error)) else ""


def _throttled(say: Say, job_id: int) -> Callable[[Progress], None]:
    clock = SystemClock()
    last = 0.0
    phase = ""

    def listen(progress: Progress) -> None:
        nonlocal last, phase
        now = clock.monotonic()
        if progress.phase != phase or now - last >= PROGRESS_SECONDS:
            last, phase = now, progress.phase
            say(
                "progress",
                job=job_id,
                phase=progress.phase,
                done=progress.done,
                total=progress.total,
            )

    return listen


if __name__ == "__main__":
    sys.exit(main())
