"""Two processes of the real command (gloo, DDP) against one with the joint batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5

# Plain gradient descent at rate 1: one step moves a weight by its gradient.
GRADIENT_STEP = {
    "optim": "sgd",
    "learning_rate": 1.0,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0,
    "max_steps": 1,
    "save_steps": 1,
    "logging_steps": 1,
    "temperature": 2,
}
RECIPES: dict[str, dict[str, object]] = {
    "contrastive": {"negatives_x_device": True},
    "chunks": {"negatives_x_device": True, "gc_chunk_size": 3},
    "kl": {"objective": "kl", "contrastive_loss_weight": 0.5, "negatives_x_device": True},
    "margin_mse": {
        "objective": "margin_mse",
        "normalize": True,
        "projection_dim": 4,
        "untie_encoder": True,
    },
}

# Each process trains by every recipe, as starting a process is what takes time.
SCRIPT = """
import json, sys, torch
from trainer.train import main
torch.set_num_threads(1)
for flags in json.load(open(sys.argv[1])):
    main(flags)
"""


def words(flags):
    return [str(word) for name, value in flags.items() for word in (f"--{name}", value)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_two_processes(folder, runs, script=SCRIPT):
    (folder / "runs.json").write_text(json.dumps([words(flags) for flags in runs]))
    common = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, folder / "runs.json"],
            cwd=ROOT,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=250)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()


def logged_loss(folder):
    state = json.loads((folder / "checkpoint-1/trainer_state.json").read_text())
    return state["log_history"][0]["loss"]


def test_two_processes_have_the_gradient_of_one_with_the_joint_batch(
    train, model_folder, scored_file, qrels_file, tmp_path
):
    # Dropout would draw differently.
    config = model_folder / "config.json"
    config.write_text(config.read_text().replace('_prob": 0.1', '_prob": 0.0'))
    base = {
        "model_name_or_path": model_folder,
        "train_file": scored_file,
        "q_max_len": 8,
        "p_max_len": 12,
        "qrels_file": qrels_file,
        "train_n_passages": 3,
        "use_cpu": True,
        **GRADIENT_STEP,
    }
    run_two_processes(
        tmp_path,
        [
            {
                **base,
                **recipe,
                "per_device_train_batch_size": 2,
                "output_dir": tmp_path / "two" / name,
            }
            for name, recipe in RECIPES.items()
        ],
    )
    before = load_file(model_folder / "model.safetensors")
    for name, recipe in RECIPES.items():
        one = train(f"one-{name}", **{**base, **recipe, "per_device_train_batch_size": 4})
        two = tmp_path / "two" / name
        for path in sorted(one.glob("checkpoint-1/**/model.safetensors")):
            ones, twos = load_file(path), load_file(two / path.relative_to(one))
            for key, value in ones.items():
                torch.testing.assert_close(
                    value, twos[key], atol=TOLERANCE, rtol=0, msg=f"{name} {key}"
                )
            if ones.keys() == before.keys():  # of a transformer: far above what was tolerated
                assert (
                    max((ones[key] - before[key]).abs().max() for key in before) > 1e4 * TOLERANCE
                )
        assert logged_loss(one) == pytest.approx(logged_loss(two), rel=1e-5)


# What each batch has is noted by whichever process makes it.
NOTING = """
import os
from trainer.data import Collator
collate = Collator.__call__

def noting(self, samples):
    folder = os.environ["NOTES"]
    with open(f"{folder}/{os.environ['RANK']}.{os.getpid()}", "a") as notes:
        print(*[sample.query_id for sample in samples], file=notes)
    return collate(self, samples)

Collator.__call__ = noting
""" + SCRIPT.replace(
    "    main(flags)",
    "    os.environ['NOTES'] = flags[flags.index('--output_dir') + 1]\n"
    "    os.makedirs(os.environ['NOTES'], exist_ok=True)\n"
    "    main(flags)",
)


@pytest.mark.timeout(300)
def test_every_example_is_used_once_an_epoch_with_any_number_of_workers(
    model_folder, scored_file, tmp_path
):
    lines = scored_file.read_text().splitlines(keepends=True)
    (tmp_path / "odd.jsonl").write_text("".join(lines[:18]))
    runs = {
        (number, name): {
            "model_name_or_path": model_folder,
            "train_file": path,
            "output_dir": tmp_path / f"{name}-{number}",
            "train_n_passages": 2,
            "per_device_train_batch_size": 2,
            "num_train_epochs": 1,
            "dataloader_num_workers": number,
            "save_strategy": "no",
            "use_cpu": True,
        }
        for name, path in (("even", scored_file), ("odd", tmp_path / "odd.jsonl"))
        for number in (0, 1, 3)
    }
    run_two_processes(tmp_path, list(runs.values()), script=NOTING)
    for (number, name), flags in runs.items():
        used = [path.read_text().split() for path in flags["output_dir"].glob("[01].*")]
        processes = {path.name[0] for path in flags["output_dir"].glob("[01].*")}
        assert (len(used), processes) == (2 * max(1, number), {"0", "1"})
        each = sorted(int(query) for some in used for query in some)
        if name == "even":
            assert each == list(range(20))
        else:  # two more fill up the last joint batch of four
            assert len(each) == 20
            assert set(each) == set(range(18))
