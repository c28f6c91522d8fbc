import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from trainer.__main__ import main

ROOT = Path(__file__).parents[2]


def trainer(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_the_commands_without_importing_torch():
    script = (
        "import sys; from trainer.__main__ import main; code = main(['--help']); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "train a dense retriever" in done.stdout


def test_the_console_script_is_the_module():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["asyncval-trainer"].partition(":")
    assert (module, name) == (main.__module__, main.__name__)


def test_an_unknown_command_is_one_sentence_and_exit_code_2():
    done = trainer("trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Unknown command 'trian'. Use one of: train, encode, search, mine.\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "Training file 'PATH' does not exist. Check --train_file."),
        (
            '{"query": "q", "positive": "p"}\n{"positive": "p"}\n',
            "Training file 'PATH', line 2: no \"query\" string. Each line needs",
        ),
    ],
)
def test_bad_input_is_one_line_with_file_and_line_and_exit_code_2(
    tmp_path, model_folder, content, complaint
):
    path = tmp_path / "bad.jsonl"
    if content is not None:
        path.write_text(content)
    flags = ["--model_name_or_path", model_folder, "--output_dir", tmp_path / "out"]
    done = trainer("train", *flags, "--train_file", path, "--train_n_passages", 1)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(complaint.replace("PATH", str(path)))


def test_a_whole_training_from_the_command_line_is_quiet_on_stdout(
    tmp_path, model_folder, train_file
):
    output = tmp_path / "out"
    flags = {
        "model_name_or_path": model_folder,
        "train_file": train_file,
        "output_dir": output,
        "train_n_passages": 2,
        "max_steps": 2,
        "save_steps": 1,
        "logging_steps": 1,
    }
    done = trainer("train", *[word for key, value in flags.items() for word in (f"--{key}", value)])
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [line.split(" trainer ")[1][:11] for line in done.stderr.splitlines()] == [
        "Step 1 of 2",
        "Step 2 of 2",
    ]
    state = json.loads((output / "checkpoint-2/trainer_state.json").read_text())
    assert state["global_step"] == 2
