"""The recipes of the toolkits, each from its data to its measures, in their small variants."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asyncval.api import read_qrels, read_run

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_SECONDS = 600

# recipe -> (its last training, its run)
RECIPES = {
    "tevatron": ("stage2", "dev.tsv"),
    "tevatron_v2": ("stage2", "dev.trec"),
    "openmatch": ("stage2", "dev.trec"),
    "retromae": ("stage2", "dev.tsv"),
    "disentangled_retriever": ("distil", "dev.trec"),
}


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A folder in which the first recipe makes data for all of them."""
    return tmp_path_factory.mktemp("small")


def reciprocal_rank(run, qrels):
    """Return RR@10 of a run whose lines are in the order of rank."""
    ranked: dict[str, list[str]] = {}
    for line in read_run(run):
        ranked.setdefault(line.query_id, []).append(line.passage_id)
    judged = read_qrels(qrels)
    places = [
        next((i for i, p in enumerate(ranked[q][:10], start=1) if relevant.get(p, 0) > 0), None)
        for q, relevant in judged.items()
    ]
    return sum(1 / place for place in places if place) / len(places)


@pytest.mark.timeout(PATIENCE_SECONDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs_from_its_data_to_its_measures(recipe, small_data, tmp_path):
    if recipe in ("tevatron_v2", "disentangled_retriever"):
        pytest.importorskip("peft", reason="peft is not installed")
    training, run = RECIPES[recipe]
    done = subprocess.run(
        [EXAMPLES / recipe / "run.sh", "--small"],
        env=os.environ | {"PYTHON": sys.executable, "SMALL_DATA": small_data, "OUT": tmp_path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = tmp_path / f"{training}-validation" / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(row["step"], row["status"]) for row in rows] == [(6, "done"), (12, "done")]
    printed = dict(line.split("\t") for line in done.stdout.splitlines() if "\t" in line)
    expected = reciprocal_rank(tmp_path / run, small_data / "data" / "qrels.dev.tsv")
    assert float(printed["RR@10"]) == pytest.approx(expected, abs=5e-5)
    if "R@1000" in printed:  # the whole corpus has fewer passages than that
        assert float(printed["R@1000"]) == 1.0
