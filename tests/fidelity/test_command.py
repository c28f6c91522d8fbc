"""`asyncval fidelity` on output folders as `asyncval watch` leaves them."""

import builtins
import json
from pathlib import Path

import numpy as np
import pytest

from asyncval.cli import main
from asyncval.commands import fidelity as command
from asyncval.core.types import Checkpoint, Result, State, Validation
from asyncval.subsets.fidelity import Results

NUM_QUERIES = 30
PLANS = {
    "subset": {"corpus": "a", "precision": "fp32", "depth": 100},
    "full": {"corpus": "b", "precision": "fp32", "depth": 100},
}


def write_results(folder, scores, *, name="checkpoint-{}", sets=("",), seconds=10.0):
    """Write values per query and return the rows that the ledger would have.

    `scores` is step to the values of RR@10, one a query.
    """
    (folder / "per_query").mkdir(parents=True)
    rows = []
    for number, (step, values) in enumerate(scores.items()):
        checkpoint = name.format(step)
        metrics = {}
        for query_set in sets:
            stem = f"{checkpoint}.{query_set}" if query_set else checkpoint
            lines = [f"q{i}\t{value!r}\n" for i, value in enumerate(values.tolist())]
            (folder / "per_query" / f"{stem}.tsv").write_text("query_id\tRR@10\n" + "".join(lines))
            metrics[f"{query_set}/RR@10" if query_set else "RR@10"] = float(values.mean())
        rows.append(
            Validation(
                id=number,
                checkpoint=Checkpoint(
                    path=Path(checkpoint), step=step, layout="", fingerprint=str(step)
                ),
                state=State.DONE,
                result=Result(metrics=metrics, seconds={"total": seconds}, num_texts=100),
            )
        )
    return rows


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A subset's results and the full corpus', which tests may change; and the command."""
    draw = np.random.default_rng(1)
    full = {step: draw.random(NUM_QUERIES) * step / 500 for step in (100, 200, 300, 400)}
    rows = {
        tmp_path / "full": write_results(tmp_path / "full", full, seconds=30.0),
        tmp_path / "subset": write_results(
            tmp_path / "subset", {step: values + 0.1 for step, values in full.items()}
        ),
    }
    monkeypatch.setattr(
        command,
        "_results",
        lambda folder: Results(folder, rows[folder], PLANS.get(folder.name, {})),
    )
    return rows


@pytest.fixture
def fidelity(tmp_path, results):
    def call(*more):
        return main(
            [
                "fidelity", "--output_dir", str(tmp_path / "subset"),
                "--against", str(tmp_path / "full"), "--resamples", "50", *more,
            ]
        )  # fmt: skip

    return call


def test_a_table_has_a_row_for_each_measure_and_says_what_is_saved(fidelity, capsys):
    assert fidelity() == 0
    output = capsys.readouterr().out
    assert "RR@10" in output
    assert "4 checkpoints, 30 queries" in output
    assert "3.0 [3.0, 3.0] times the seconds" in output


def test_what_else_differs_than_the_corpus_is_said(fidelity, monkeypatch, capsys):
    assert fidelity() == 0
    assert "not validated alike" not in capsys.readouterr().err
    monkeypatch.setitem(PLANS, "full", {**PLANS["full"], "precision": "bf16"})
    assert fidelity() == 0
    assert "precision is fp32 on the subset and bf16 on the full corpus" in capsys.readouterr().err


def test_json_has_everything_a_plot_needs(fidelity, capsys):
    assert fidelity("--json") == 0
    report = json.loads(capsys.readouterr().out)
    measure = report["measures"]["RR@10"]
    assert [each["step"] for each in report["checkpoints"]] == [100, 200, 300, 400]
    assert measure["inflation"]["value"] == pytest.approx(0.1)
    assert measure["tau"] == pytest.approx({"value": 1, "low": 1, "high": 1})
    assert measure["same_best"] is True
    assert np.subtract(measure["subset"], measure["full"]) == pytest.approx([0.1] * 4)
    assert report["cost_ratio"]["value"] == pytest.approx(3)


def test_several_query_sets_are_compared_each_for_itself(tmp_path, results, fidelity, capsys):
    draw = np.random.default_rng(2)
    for name in ("full", "subset"):
        folder = tmp_path / f"two {name}"
        scores = {step: draw.random(9) for step in (1, 2, 3)}
        results[folder] = write_results(folder, scores, sets=("dev", "test"))
    flags = ["--output_dir", str(tmp_path / "two subset"), "--against", str(tmp_path / "two full")]
    assert fidelity(*flags, "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["measures"]) == ["dev/RR@10", "test/RR@10"]


def test_checkpoints_that_only_one_side_has_are_counted(tmp_path, results, fidelity, capsys):
    results[tmp_path / "subset"].pop(0)
    assert fidelity("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["checkpoints"]) == 3
    assert "1 of 4 checkpoints have results only in" in report["remarks"][0]
    assert "'checkpoint-100'" in report["remarks"][0]


def test_checkpoints_of_the_same_name_with_other_weights_are_left_out(
    tmp_path, results, fidelity, capsys
):
    write = write_results(
        tmp_path / "other", {s: np.ones(NUM_QUERIES) * s / 500 for s in (100, 200, 300, 400)}
    )
    object.__setattr__(write[0].checkpoint, "fingerprint", "else")
    results[tmp_path / "other"] = write
    assert fidelity("--output_dir", str(tmp_path / "other"), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["checkpoints"]) == 3
    assert (
        "1 checkpoints have the same name in both folders and other weights"
        in (report["remarks"][0])
    )


def test_queries_that_only_one_side_has_are_left_out_and_counted(
    tmp_path, results, fidelity, capsys
):
    scores = {step: np.linspace(0, step / 500, 20) for step in (100, 200, 300, 400)}
    results[tmp_path / "fewer"] = write_results(tmp_path / "fewer", scores)
    assert fidelity("--output_dir", str(tmp_path / "fewer"), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["queries"] == 20
    assert report["remarks"] == [
        "RR@10: 10 queries are not judged in both folders; the other 20 are compared."
    ]


def test_fewer_than_three_common_checkpoints_are_one_sentence(tmp_path, results, fidelity, capsys):
    del results[tmp_path / "subset"][2:]
    assert fidelity() == 3
    assert "2 checkpoints have results in both" in capsys.readouterr().err


def test_values_of_another_validation_are_refused(tmp_path, fidelity, capsys):
    path = tmp_path / "subset" / "per_query" / "checkpoint-200.tsv"
    path.write_text(path.read_text() + "more\t1.0\n")
    assert fidelity() == 2
    assert "the file is of another validation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file"),
        ("", "has no values in it"),
        ("query_id\tRR@10\n", "has no values in it"),
        ("query_id\tRR@10\nq1\tx\n", "is damaged"),
        ("query_id\tRR@10\nq1\n", "is damaged"),
    ],
)
def test_values_that_are_missing_or_damaged_are_one_sentence(
    tmp_path, fidelity, capsys, content, message
):
    path = tmp_path / "subset" / "per_query" / "checkpoint-200.tsv"
    path.unlink() if content is None else path.write_text(content)
    assert fidelity() == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_plot_is_drawn(tmp_path, fidelity):
    pytest.importorskip("matplotlib")
    assert fidelity("--plot", str(tmp_path / "plot.png")) == 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_is_one_sentence(tmp_path, fidelity, capsys):
    pytest.importorskip("matplotlib")
    assert fidelity("--plot", str(tmp_path / "nowhere" / "plot.png")) == 2
    assert "--plot: " in capsys.readouterr().err


def test_without_matplotlib_it_is_said_how_to_install_it(tmp_path, fidelity, capsys, monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert fidelity("--plot", str(tmp_path / "plot.png")) == 2
    assert "pip install asyncval[plot]" in capsys.readouterr().err


def test_folders_without_a_common_measure_are_one_sentence(tmp_path, results, fidelity, capsys):
    scores = {step: np.ones(NUM_QUERIES) for step in (100, 200, 300, 400)}
    results[tmp_path / "set"] = write_results(tmp_path / "set", scores, sets=("dev",))
    assert fidelity("--output_dir", str(tmp_path / "set")) == 3
    assert "no measure in common" in capsys.readouterr().err


def test_no_resamples_are_refused(fidelity, capsys):
    assert fidelity("--resamples", "0") == 2
    assert "--resamples 0" in capsys.readouterr().err
