"""A training that was killed in the middle of an epoch goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUM_STEPS = 14  # of 20 examples in batches of 4: nearly three epochs

# All runs of a process are in one, as starting it is what takes time. Step 8 of the run that is
# to be killed waits for that, after its loss and before its checkpoint.
SCRIPT = """
import json, logging, sys, time, torch
from trainer.train import main

class Stall(logging.Handler):
    def emit(self, record):
        if sys.argv[2] == "stall" and record.getMessage().startswith("Step 8 of"):
            print("stalled", flush=True)
            time.sleep(600)

logging.getLogger("trainer").addHandler(Stall())
torch.set_num_threads(1)
for flags in json.load(open(sys.argv[1])):
    main(flags)
"""


def start(folder, runs, *, stall):
    (folder / "runs.json").write_text(json.dumps([[str(word) for word in run] for run in runs]))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder / "runs.json"), "stall" if stall else ""],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def losses(folder, step):
    state = json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_losses_of_every_step_are_those_of_an_undisturbed_training(
    model_folder, train_file, tmp_path, num_workers
):
    def flags(output, *more):
        return [
            "--model_name_or_path", model_folder, "--train_file", train_file,
            "--output_dir", tmp_path / output, "--train_n_passages", 3,
            "--per_device_train_batch_size", 4, "--learning_rate", 1e-2, "--max_steps", NUM_STEPS,
            "--save_steps", 7, "--logging_steps", 1, "--use_cpu", True,
            "--dataloader_num_workers", num_workers, *more,
        ]  # fmt: skip

    process = start(tmp_path, [flags("killed")], stall=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "stalled\n"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its data workers too
        process.communicate()
    assert max(losses(tmp_path / "killed", 7)) == 7
    both = [flags("killed", "--resume_from_checkpoint", "true"), flags("whole")]
    process = start(tmp_path, both, stall=False)
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    undisturbed = losses(tmp_path / "whole", NUM_STEPS)
    assert set(undisturbed) == set(range(1, NUM_STEPS + 1))
    assert losses(tmp_path / "killed", NUM_STEPS) == undisturbed
