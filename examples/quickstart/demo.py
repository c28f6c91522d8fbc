"""Train a dense retriever while Asyncval validates every checkpoint of it.

It runs the commands that you would type into two terminals, then looks at what came out. Nothing
is downloaded, and a processor with two cores is enough.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
PRODUCED = ("training", "validation", "cache", "model", "curve.png", "training.log", "asyncval.log")

Q_MAX_LEN, P_MAX_LEN = 32, 96
MEASURES = ("RR@10", "nDCG@10")
RECIPE = {
    "train_n_passages": 1,  # the other passages of a batch are the negatives
    "q_max_len": Q_MAX_LEN,
    "p_max_len": P_MAX_LEN,
    "pooling": "mean",
    "normalize": True,
    "temperature": 0.05,
    "per_device_train_batch_size": 128,
    "learning_rate": 2e-3,
    "seed": 1,
}
VALIDATION_LIMIT_SECONDS = 600
# An idle OpenMP thread that spins would take the core from the other process.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}

STARTED = time.monotonic()


class BrokenPromise(Exception):
    """Something is not as the demo says it should be."""


def say(text: str) -> None:
    """Print a line with the time since the start."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", flush=True)


def command(script: str | Path, *words: object, **flags: object) -> list[str]:
    """Return the command line of one of our Python programs: a file or a module."""
    program = [str(script)] if isinstance(script, Path) else ["-m", script]
    line = [sys.executable, *program, *map(str, words)]
    for name, value in flags.items():
        values = value if isinstance(value, list | tuple) else [value]
        line += [f"--{name}", *map(str, values)]
    return line


def run(line: Sequence[str]) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(line, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BrokenPromise(f"`{' '.join(line[1:4])} ...` ended with code {done.returncode}.")
    return done.stdout.rstrip()


@contextmanager
def background(
    line: Sequence[str], log: IO[str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command beside us; it does not outlive the block."""
    process = subprocess.Popen(line, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def is_running(process: "subprocess.Popen[bytes]") -> bool:
    """Tell after at most a second whether a process still runs."""
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return True
    return False


def tell_news(log: IO[str]) -> None:
    """Repeat the lines of Asyncval's log that are new and hold a result."""
    for line in log:
        if MEASURES[0] in line:
            say(f"  {line[line.find('checkpoint-') :].strip()}")


def clear(work_dir: Path) -> None:
    """Remove what an earlier demo left; refuse a folder that is something else."""
    if work_dir.exists() and any(work_dir.iterdir()) and not (work_dir / "corpus.jsonl").exists():
        raise BrokenPromise(f"{str(work_dir)!r} is not a folder of this demo. Name a new one.")
    for name in PRODUCED:
        path = work_dir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (work_dir / "training").mkdir(parents=True)


def prepare(work_dir: Path) -> None:
    """Build the collection and a model that knows nothing yet."""
    say("Building a collection of Python functions ...")
    say(run(command(HERE / "collection.py", output_dir=work_dir)))
    say("Building a tokenizer and a small BERT with random weights ...")
    train_file = work_dir / "train.jsonl"
    say(run(command(HERE / "model.py", train_file=train_file, output_dir=work_dir / "model")))


def watch_command(work_dir: Path, *, num_checkpoints: int) -> list[str]:
    """Return the validator's command line."""
    return command(
        "asyncval",
        "watch",
        ckpts_dir=work_dir / "training",
        query_file=work_dir / "queries.dev.jsonl",
        candidate_dir=work_dir / "corpus.jsonl",
        qrel_file=work_dir / "qrels.dev.tsv",
        q_max_len=Q_MAX_LEN,
        p_max_len=P_MAX_LEN,
        metrics=MEASURES,
        depth=100,
        output_dir=work_dir / "validation",
        cache_dir=work_dir / "cache",
        max_num_valid=num_checkpoints,
    )


def train_command(work_dir: Path, *, steps: int, num_checkpoints: int) -> list[str]:
    """Return the trainer's command line."""
    save_steps = steps // num_checkpoints
    return command(
        "trainer",
        "train",
        model_name_or_path=work_dir / "model",
        train_file=work_dir / "train.jsonl",
        output_dir=work_dir / "training",
        max_steps=steps,
        save_steps=save_steps,
        warmup_steps=steps // 2,
        logging_steps=max(1, save_steps // 3),
        report_to="tensorboard",
        **RECIPE,
    )


def train_and_validate(work_dir: Path, *, steps: int, num_checkpoints: int) -> float:
    """Run trainer and validator side by side to their ends; return when the training ended."""
    watch = watch_command(work_dir, num_checkpoints=num_checkpoints)
    train = train_command(work_dir, steps=steps, num_checkpoints=num_checkpoints)
    with (
        (work_dir / "training.log").open("w") as training_log,
        (work_dir / "asyncval.log").open("w") as asyncval_log,
        (work_dir / "asyncval.log").open() as news,
        background(watch, asyncval_log) as validator,
        background(train, training_log) as trainer,
    ):
        say(f"Asyncval watches {work_dir / 'training'}; its log is {asyncval_log.name}.")
        say(f"Training for {steps} steps; its log is {training_log.name}.")
        while is_running(trainer):
            tell_news(news)
            if validator.poll():
                raise BrokenPromise(f"Asyncval died; the reason is in {asyncval_log.name}.")
        trained_at = time.time()
        if trainer.returncode:
            raise BrokenPromise(f"The training died; the reason is in {training_log.name}.")
        say("The training is over; Asyncval finishes its work ...")
        try:
            validator.wait(timeout=VALIDATION_LIMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise BrokenPromise(
                f"Asyncval has not ended {VALIDATION_LIMIT_SECONDS} s after the training; "
                f"see {asyncval_log.name}."
            ) from error
        if validator.returncode:
            raise BrokenPromise(
                f"Asyncval ended with code {validator.returncode}; see {asyncval_log.name}."
            )
        tell_news(news)
    say("Asyncval has validated them all and ended by itself.")
    return trained_at


def check(rows: Sequence[dict[str, Any]], *, num_checkpoints: int, trained_at: float) -> None:
    """Hold the results against what the demo promises."""
    if len(rows) < num_checkpoints:
        raise BrokenPromise(f"Only {len(rows)} of {num_checkpoints} checkpoints were validated.")
    first, last = rows[0]["metrics"]["RR@10"], rows[-1]["metrics"]["RR@10"]
    if last < 1.2 * first:
        raise BrokenPromise(f"RR@10 went from {first:.3f} to {last:.3f}, which is no clear rise.")
    beside = sum(row["finished_at"] < trained_at for row in rows)
    if beside < min(6, num_checkpoints - 2):
        raise BrokenPromise(f"Only {beside} were validated while the training still ran.")
    say(
        f"{len(rows)} checkpoints validated, {beside} of them while the training still ran; "
        f"RR@10 rose from {first:.3f} to {last:.3f}."
    )


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw each measure over the training steps."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    steps = [row["step"] for row in rows]
    for measure in MEASURES:
        axes.plot(steps, [row["metrics"][measure] for row in rows], marker="o", label=measure)
    axes.set(xlabel="training step", ylim=(0, None), title="Validated while training")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def demo(work_dir: Path, *, steps: int, num_checkpoints: int) -> None:
    """Prepare, train and validate side by side, and look at the results."""
    clear(work_dir)
    prepare(work_dir)
    trained_at = train_and_validate(work_dir, steps=steps, num_checkpoints=num_checkpoints)
    validation = work_dir / "validation"
    print("\n" + run(command("asyncval", "results", output_dir=validation)) + "\n")
    answer = run([*command("asyncval", "results", output_dir=validation), "--json"])
    rows = [row for row in json.loads(answer) if row["metrics"]]
    check(rows, num_checkpoints=num_checkpoints, trained_at=trained_at)
    plot(rows, work_dir / "curve.png")
    say(f"The curve is in {work_dir / 'curve.png'}; see also: tensorboard --logdir {work_dir}")


def main() -> int:
    """Run the demo; a broken promise is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work_dir", type=Path, default=Path("demo"))
    parser.add_argument("--steps", type=int, default=200, help="of training")
    parser.add_argument("--num_checkpoints", type=int, default=10, help="evenly over the steps")
    flags = parser.parse_args()
    if flags.num_checkpoints < 3 or flags.steps < 1 or flags.steps % flags.num_checkpoints:
        parser.error("--num_checkpoints must be at least 3 and divide --steps.")
    try:
        demo(flags.work_dir, steps=flags.steps, num_checkpoints=flags.num_checkpoints)
    except BrokenPromise as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
