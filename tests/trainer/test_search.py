"""`trainer search`: exact search in files of vectors."""

import json
import pickle

import numpy as np
import pytest

from asyncval.api import read_run
from trainer.__main__ import main


@pytest.fixture
def vectors(tmp_path):
    """Queries [5, 6] and passages [50, 6] of small whole numbers, so that many scores are equal."""
    draw = np.random.default_rng(3)
    queries = draw.integers(-2, 3, (5, 6)).astype(np.float32)
    passages = draw.integers(-2, 3, (50, 6)).astype(np.float32)
    write(tmp_path / "vectors", "queries", 0, 1, queries, [f"q{i}" for i in range(5)])
    ids = [f"p{i}" for i in range(50)]
    for index in range(3):
        write(tmp_path / "vectors", "passages", index, 3, passages[index::3], ids[index::3])
    return queries, passages, ids


def write(folder, side, index, num, vectors, ids, **origin):
    folder.mkdir(exist_ok=True)
    stem = f"{side}-{index}-of-{num}"
    np.save(folder / f"{stem}.npy", vectors)
    (folder / f"{stem}.ids.txt").write_text("".join(f"{each}\n" for each in ids))
    (folder / f"{stem}.json").write_text(json.dumps({"model": "m", "texts": side, **origin}))


@pytest.fixture
def search(tmp_path):
    """Search, and return the exit code; flags replace or add to the defaults."""

    def run(**flags):
        defaults = {
            "query_reps": tmp_path / "vectors",
            "passage_reps": tmp_path / "vectors",
            "save_ranking_to": tmp_path / "runs" / "found.trec",
            "depth": 10,
        }
        words = ["search"]
        for name, value in (defaults | flags).items():
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *map(str, values)]
        return main(words)

    return run


def expected(queries, passages, ids, *, depth):
    """Rank by brute force: score down, then id down."""
    scores = queries @ passages.T
    return {
        f"q{row}": sorted(zip(scores[row].tolist(), ids, strict=True), reverse=True)[:depth]
        for row in range(len(queries))
    }


def found(path):
    rankings: dict[str, list[tuple[float | None, str]]] = {}
    for line in read_run(path):
        rankings.setdefault(line.query_id, []).append((line.score, line.passage_id))
    return rankings


@pytest.mark.parametrize("batch_size", [None, 2])
def test_it_finds_what_numpy_finds_ties_included(vectors, search, tmp_path, batch_size):
    flags = {} if batch_size is None else {"batch_size": batch_size}
    assert search(**flags) == 0
    assert found(tmp_path / "runs" / "found.trec") == expected(*vectors, depth=10)


def test_a_depth_beyond_the_corpus_gives_every_passage_once(vectors, search, tmp_path):
    assert search(depth=1000) == 0
    assert found(tmp_path / "runs" / "found.trec") == expected(*vectors, depth=50)


def test_the_measures_are_those_of_pytrec_eval_on_the_run_that_is_written(
    vectors, search, tmp_path, capsys
):
    import pytrec_eval

    qrels = {f"q{i}": {f"p{3 * i}": 1, f"p{7 * i + 1}": 2, "gone": 1} for i in range(4)}
    (tmp_path / "qrels").write_text(
        "".join(f"{q} 0 {p} {grade}\n" for q, each in qrels.items() for p, grade in each.items())
    )
    metrics = ["nDCG@10", "R@20", "AP"]
    assert search(depth=30, qrel_file=tmp_path / "qrels", metrics=metrics) == 0
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    run = {
        query_id: {passage_id: score for score, passage_id in ranking}
        for query_id, ranking in found(tmp_path / "runs" / "found.trec").items()
    }
    names = {"nDCG@10": "ndcg_cut_10", "R@20": "recall_20", "AP": "map"}
    values = pytrec_eval.RelevanceEvaluator(qrels, set(names.values())).evaluate(run)
    assert [name for name, _ in printed] == metrics
    for name, value in printed:
        expected_mean = sum(each[names[name]] for each in values.values()) / len(values)
        assert float(value) == pytest.approx(expected_mean, abs=5e-5)


def test_the_form_of_ms_marco_has_ranks(vectors, search, tmp_path):
    assert search(save_format="msmarco") == 0
    rows = [line.split("\t") for line in (tmp_path / "runs/found.trec").read_text().splitlines()]
    best = expected(*vectors, depth=10)["q1"]
    mine = [row for row in rows if row[0] == "q1"]
    assert [row[1] for row in mine] == [passage_id for _, passage_id in best]
    assert [row[2] for row in mine] == [str(rank) for rank in range(1, 11)]


def test_files_of_other_toolkits_are_read_and_patterns_too(vectors, search, tmp_path):
    queries, passages, ids = vectors
    (tmp_path / "tevatron").mkdir()
    for part in range(2):
        with (tmp_path / "tevatron" / f"corpus.{part}.pkl").open("wb") as file:
            pickle.dump((passages[part::2].astype(np.float16), ids[part::2]), file)
    np.save(tmp_path / "query_embeds.npy", queries)
    np.save(tmp_path / "qids.npy", np.array([f"q{i}" for i in range(5)]))
    code = search(
        query_reps=tmp_path / "query_embeds.npy", passage_reps=tmp_path / "tevatron" / "*.pkl"
    )
    assert code == 0
    assert found(tmp_path / "runs" / "found.trec") == expected(*vectors, depth=10)


def test_a_part_without_vectors_is_passed_over_and_nothing_else_is_refused(
    vectors, search, tmp_path, capfd
):
    _, passages, ids = vectors
    for name, content in (("a", ([], [])), ("b", (passages, ids))):
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=4))
    assert search(passage_reps=[tmp_path / "a", tmp_path / "b"]) == 0
    assert found(tmp_path / "runs" / "found.trec") == expected(*vectors, depth=10)
    capfd.readouterr()
    assert search(passage_reps=tmp_path / "a") == 2
    assert capfd.readouterr().err == "--passage_reps: there is no vector in these files.\n"
    assert search(query_reps=tmp_path / "a") == 2


def test_other_encodings_of_queries_and_passages_are_said(vectors, search, tmp_path, caplog):
    write(tmp_path / "other", "queries", 0, 1, vectors[0], [f"q{i}" for i in range(5)], model="n")
    assert search(query_reps=tmp_path / "other") == 0
    assert "were encoded with another model each" in caplog.text


def spoil(folder, how):
    if how == "missing":
        (folder / "passages-1-of-3.npy").unlink()
    elif how == "another":
        write(folder, "passages", 1, 3, np.ones((2, 6), np.float32), ["a", "b"], model="other")
    elif how == "twice":
        write(folder, "passages", 1, 3, np.ones((2, 6), np.float32), ["p0", "b"])
    elif how == "size":
        write(folder, "passages", 0, 3, np.ones((2, 5), np.float32), ["a", "b"])
    elif how == "counts":
        write(folder, "passages", 0, 2, np.ones((2, 6), np.float32), ["a", "b"])
    elif how == "nothing":
        for path in folder.glob("passages*"):
            path.unlink()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("missing", "--passage_reps: 'FOLDER' lacks passages-1-of-3.npy."),
        ("another", "do not belong together: another model. Encode one of them anew."),
        ("twice", "--passage_reps: the passage 'p0' stands twice in these files."),
        ("size", "has vectors of 5 dimensions where those of the queries have 6"),
        ("counts", "--passage_reps: 'FOLDER' has shards of 2 and of 3."),
        ("nothing", "--passage_reps: 'FOLDER' has no passages-*.npy in it."),
    ],
)
def test_shards_that_are_no_corpus_are_one_sentence_and_code_2(
    vectors, search, tmp_path, capfd, how, sentence
):
    spoil(tmp_path / "vectors", how)
    assert search(depth=50) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if " trainer " not in line]
    assert len(lines) == 1
    assert sentence.replace("FOLDER", str(tmp_path / "vectors")) in lines[0]
    assert not (tmp_path / "runs" / "found.trec").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"depth": 0}, "--depth is 0. It must be at least 1."),
        ({"save_ranking_to": "."}, "--save_ranking_to: '.' is a folder. Name a file in it."),
        ({"qrel_file": "nowhere"}, "--qrel_file: there is no file 'nowhere'."),
        ({"query_reps": "nowhere"}, "--query_reps: there is no file 'nowhere'."),
        ({"passage_reps": "nowhere*.pkl"}, "--passage_reps: there is no file 'nowhere*.pkl'."),
    ],
)
def test_flags_that_cannot_be_meant_are_one_sentence(vectors, search, capfd, flags, sentence):
    assert search(**flags) == 2
    assert capfd.readouterr().err == f"{sentence}\n"
