"""`trainer mine`: hard negatives out of a checkpoint or a run."""

import json

import pytest

from asyncval.api import EncodingConfig, TextEncoder, read_run
from tests.trainer.collections import NUM_QUERIES, write_collection
from trainer.__main__ import main


@pytest.fixture
def files(tmp_path):
    return write_collection(tmp_path / "data")


@pytest.fixture
def mine(files, tmp_path):
    """Mine, and return the exit code and the output's lines; flags replace or add to others."""

    def run(*switches, **flags):
        output = tmp_path / "mined"
        output.unlink(missing_ok=True)
        defaults = {
            "qrel_file": files.qrels,
            "query_file": files.queries,
            "candidate_dir": files.corpus,
            "output_file": output,
        }
        words = ["mine", *switches]
        for name, value in (defaults | flags).items():
            if value is not None:
                values = value if isinstance(value, tuple) else (value,)
                words += [f"--{name}", *map(str, values)]
        code = main(words)
        return code, output.read_text().splitlines() if output.exists() else []

    return run


@pytest.fixture
def checkpoint(bert_folder, tmp_path):
    return {
        "model_name_or_path": bert_folder,
        "pooling": "mean",
        "cache_dir": tmp_path / "cache",
        "device": "cpu",
    }


@pytest.fixture
def run_file(tmp_path):
    """Every query gets p0, p1 ... p59, in this order."""
    path = tmp_path / "run.trec"
    path.write_text(
        "".join(
            f"q{q} Q0 p{p} {p + 1} {100 - p} bm25\n" for q in range(NUM_QUERIES) for p in range(60)
        )
    )
    return path


def by_query(lines, separator):
    return {
        query_id: negatives.split(separator)
        for query_id, _, negatives in (line.partition("\t") for line in lines)
    }


def test_a_run_gives_the_range_of_ranks_without_the_positives(mine, run_file):
    code, lines = mine(run_file=run_file, form="commas", depth_range=(4, 40))
    assert code == 0
    negatives = by_query(lines, ",")
    assert len(negatives) == NUM_QUERIES
    # q3 is answered by p3, which has rank 4, and by p33, which has rank 34.
    assert negatives["q3"] == [f"p{i}" for i in range(3, 40) if i not in (3, 33)]
    # What is judged, and not relevant, is a negative.
    assert "p12" in negatives["q3"]


def test_a_draw_is_a_part_of_the_range_and_depends_on_query_and_seed_only(mine, run_file, files):
    flags = {"run_file": run_file, "form": "spaces", "num_negatives": 5, "depth_range": (1, 50)}
    first = by_query(mine(**flags)[1], " ")
    assert by_query(mine(**flags)[1], " ") == first
    assert {len(each) for each in first.values()} == {5}
    for query_id, negatives in first.items():
        number = int(query_id[1:])
        assert not {f"p{number}", f"p{number + 30}"} & set(negatives)
        places = [int(each[1:]) for each in negatives]
        assert places == sorted(places)  # in the order of the ranking
        assert max(places) < 50
    assert by_query(mine(**flags, seed=1)[1], " ") != first
    few = files.qrels.read_text().splitlines(keepends=True)[6:12]
    files.qrels.write_text("".join(few))
    assert by_query(mine(**flags)[1], " ") == {each: first[each] for each in ("q2", "q3")}


def test_a_checkpoint_ranks_as_brute_force_does(mine, checkpoint, files, tmp_path):
    code, lines = mine(**checkpoint, form="commas", depth_range=(1, 20))
    assert code == 0
    encoder = TextEncoder(
        checkpoint["model_name_or_path"],
        EncodingConfig(pooling="mean", cache_dir=tmp_path / "cache"),
        device="cpu",
    )
    queries = encoder.tokenize([files.queries], is_query=True)
    passages = encoder.tokenize(sorted(files.corpus.iterdir()), is_query=False)
    scores = encoder.encode(queries, is_query=True) @ encoder.encode(passages, is_query=False).T
    ids = list(passages.text_ids)
    for row, (query_id, negatives) in enumerate(by_query(lines, ",").items()):
        assert query_id == f"q{row}"
        assert not {f"p{row}", f"p{row + 30}"} & set(negatives)
        assert 18 <= len(negatives) <= 20
        values = dict(zip(ids, scores[row].tolist(), strict=True))
        found = [values[each] for each in negatives]
        assert found == pytest.approx(sorted(found, reverse=True), abs=1e-5)
        others = values.keys() - {*negatives, f"p{row}", f"p{row + 30}"}
        assert max(values[each] for each in others) <= min(found) + 1e-5


def test_portions_of_the_corpus_find_the_same(mine, checkpoint, monkeypatch):
    flags = {**checkpoint, "form": "commas", "depth_range": (1, 20)}
    whole = mine(**flags)
    monkeypatch.setattr("trainer.mine.PASSAGES_AT_ONCE", 25)
    assert mine(**flags) == whole


def test_texts_are_training_lines_with_ids_titles_and_scores(mine, checkpoint):
    code, lines = mine("--write_scores", **checkpoint, depth_range=(1, 6), num_negatives=3)
    assert code == 0
    rows = [json.loads(line) for line in lines]
    assert [row["query_id"] for row in rows] == [f"q{i}" for i in range(NUM_QUERIES)]
    row = rows[3]
    assert [each["docid"] for each in row["positive_passages"]] == ["p3", "p33"]
    assert row["query"] == row["positive_passages"][0]["text"]
    assert [each["title"] for each in row["positive_passages"]] == ["music", "music"]
    assert len(row["negative_passages"]) == 3
    falling = [each["score"] for each in row["negative_passages"]]
    assert falling == sorted(falling, reverse=True)
    known = mine("--write_scores", **checkpoint, depth_range=(1, 60))[1][3]
    by_id = {
        each["docid"]: each["score"]
        for side in ("positive_passages", "negative_passages")
        for each in json.loads(known)[side]
    }
    assert len(by_id) == 60  # a positive has its score, whether it was found or not
    for each in row["positive_passages"] + row["negative_passages"]:
        assert each["score"] == pytest.approx(by_id[each["docid"]], abs=1e-5)


def train(bert_folder, tmp_path, **flags):
    from trainer.train import main as run

    flags = {
        "model_name_or_path": bert_folder, "output_dir": tmp_path / "training",
        "p_max_len": 32, "train_n_passages": 3, "max_steps": 1, "save_strategy": "no",
        "use_cpu": True, "report_to": "none", **flags,
    }  # fmt: skip
    run([str(word) for name, value in flags.items() for word in (f"--{name}", value)])
    assert (tmp_path / "training" / "model.safetensors").exists()


def test_texts_are_written_as_they_are_for_the_training_to_word(
    mine, checkpoint, run_file, bert_folder, tmp_path
):
    wording = {"doc_template": "Title: <title> Text: <text>"}
    given = {"run_file": run_file, "depth_range": (1, 6)}
    assert mine(**given, query_template="tevatron", **wording) == mine(**given)
    _, lines = mine(**checkpoint, depth_range=(1, 6), query_template="query: <text>", **wording)
    row = json.loads(lines[3])
    assert row["query"] == row["positive_passages"][0]["text"]
    assert row["positive_passages"][0]["title"] == "music"
    flags = {"train_file": tmp_path / "mined", "query_template": "query: <query>", **wording}
    train(bert_folder, tmp_path, **flags)


def test_lists_of_ids_need_no_text(mine, run_file, tmp_path):
    queries = tmp_path / "questions.jsonl"
    queries.write_text('{"_id": "q1", "question": "ocean"}\n')
    flags = {"run_file": run_file, "query_file": queries, "query_template": "<question>"}
    assert mine(**flags, form="commas", depth_range=(1, 3)) == (0, ["q1\tp0,p2"])


def test_the_trainer_learns_from_the_scores(mine, checkpoint, bert_folder, tmp_path):
    mine("--write_scores", **checkpoint, depth_range=(1, 6))
    train(bert_folder, tmp_path, train_file=tmp_path / "mined", objective="kl")


@pytest.mark.parametrize("form", ["texts", "ids", "commas", "spaces"])
def test_the_trainer_reads_every_form(mine, run_file, files, bert_folder, tmp_path, form):
    assert mine(run_file=run_file, form=form, depth_range=(1, 6))[0] == 0
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(each.read_text() for each in sorted(files.corpus.iterdir())))
    flags = {"train_file": tmp_path / "mined"}
    if form in ("commas", "spaces"):
        flags = {"train_qrels": files.qrels, "neg_file": tmp_path / "mined"}
        flags["train_query_file"] = files.queries
    if form != "texts":
        flags["corpus_file"] = corpus
    train(bert_folder, tmp_path, **flags)


@pytest.fixture
def token_files(tmp_path):
    """The queries and the corpus as token ids, one each."""
    for name, count in (("corpus", 60), ("queries", NUM_QUERIES)):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(
                json.dumps({"text_id": f"{name[0].replace('c', 'p')}{i}", "text": [5 + i % 9]})
                + "\n"
                for i in range(count)
            )
        )
    return {
        "query_file": tmp_path / "queries.jsonl",
        "candidate_dir": tmp_path / "corpus.jsonl",
    }


def test_the_trainer_learns_from_the_scores_of_token_ids(
    mine, checkpoint, token_files, bert_folder, tmp_path
):
    code, lines = mine("--write_scores", **checkpoint, **token_files, depth_range=(1, 6))
    assert code == 0
    for row in map(json.loads, lines):
        positives, negatives = len(row["positives"]), len(row["negatives"])
        assert len(row["scores"]) == positives + negatives
        falling = row["scores"][positives:]
        assert falling == sorted(falling, reverse=True)
    train(bert_folder, tmp_path, train_file=tmp_path / "mined", objective="kl")


def test_the_trainer_reads_token_ids(mine, run_file, token_files, bert_folder, tmp_path):
    code, _ = mine(run_file=run_file, **token_files, depth_range=(1, 6))
    assert code == 0
    train(bert_folder, tmp_path, train_file=tmp_path / "mined")


def test_ids_name_positives_and_negatives(mine, run_file):
    code, lines = mine(run_file=run_file, form="ids", depth_range=(1, 4), candidate_dir=None)
    assert code == 0
    row = json.loads(lines[1])
    assert row.pop("query_text")
    assert row == {
        "query_id": "q1",
        "positive_document_ids": ["p1", "p31"],
        "negative_document_ids": ["p0", "p2", "p3"],
    }


def test_token_ids_give_lines_of_token_ids(mine, run_file, files, tmp_path):
    corpus = tmp_path / "tokens.jsonl"
    corpus.write_text(
        "".join(json.dumps({"text_id": f"p{i}", "text": [i, i + 1]}) + "\n" for i in range(60))
    )
    queries = tmp_path / "queries.jsonl"
    queries.write_text(json.dumps({"text_id": "q1", "text": [7]}) + "\n")
    code, lines = mine(
        run_file=run_file, query_file=queries, candidate_dir=corpus, depth_range=(1, 3)
    )
    assert code == 0
    assert [json.loads(line) for line in lines] == [
        {"query": [7], "positives": [[1, 2], [31, 32]], "negatives": [[0, 1], [2, 3]]}
    ]


def test_queries_without_negatives_or_positives_are_left_out_and_counted(
    mine, run_file, files, caplog
):
    files.qrels.write_text("q0 0 p0 1\nq1 0 p1 0\nq2 0 p2 1\nq3 0 gone 1\n")
    code, lines = mine(run_file=run_file, depth_range=(1, 1))
    assert code == 0
    assert [json.loads(line)["query_id"] for line in lines] == ["q2"]
    assert "2 queries are left out: nothing in their ranking is a negative, or" in caplog.text


def test_what_search_writes_can_be_mined(mine, run_file, tmp_path):
    assert {line.query_id for line in read_run(run_file)} == {f"q{i}" for i in range(NUM_QUERIES)}
    marco = tmp_path / "run.tsv"
    marco.write_text("".join(f"q1\tp{p}\t{p + 1}\n" for p in range(20)))
    code, lines = mine(run_file=marco, form="commas", depth_range=(1, 5))
    assert (code, lines) == (0, ["q1\tp0,p2,p3,p4"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"depth_range": (5, 4)}, "--depth_range is 5 4. Give the first rank and the last."),
        ({"num_negatives": 0}, "--num_negatives is 0. It must be at least 1."),
        ({"run_file": None}, "Give either --model_name_or_path or --run_file."),
        ({"query_file": None}, "--query_file is needed, for a checkpoint and for texts and ids."),
        ({"candidate_dir": None}, "--candidate_dir is needed, for a checkpoint and for texts."),
        ({"depth_range": (61, 70)}, "No query has both a negative at the ranks of --depth_range"),
        ({"query_file": "SMALL"}, "--query_file: none of the 8 judged queries is in it; the first"),
        ({"run_file": "nowhere"}, "there is no file 'nowhere'."),
        ({"qrel_file": "nowhere"}, "--qrel_file: there is no file 'nowhere'."),
        ({"candidate_dir": "SMALL"}, "--candidate_dir: there is no passage 'p"),
        ({"doc_template": "words"}, "--doc_template 'words': there is no <column> in it"),
        ({"doc_template": "<title> <year>"}, "--doc_template has <year>, which the output would"),
        ({"query_template": "<name>", "form": "ids"}, "--query_template has <name>, which the out"),
        ({"p_max_len": 0}, "--p_max_len 0: give 1 or more."),
        ({"output_file": "."}, "--output_file: '.' is a folder. Name a file in it."),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_code_2(
    mine, run_file, tmp_path, capfd, flags, sentence
):
    (tmp_path / "small.tsv").write_text("p0\tocean\n")
    flags = {k: tmp_path / "small.tsv" if v == "SMALL" else v for k, v in flags.items()}
    code, lines = mine(**{"run_file": run_file} | flags)
    assert (code, lines) == (2, [])
    said = [line for line in capfd.readouterr().err.splitlines() if " trainer " not in line]
    assert len(said) == 1
    assert sentence in said[0]


def test_an_id_with_the_separator_in_it_is_refused(mine, tmp_path, files, capfd):
    run = tmp_path / "run.tsv"
    run.write_text("q0\tp,1\t1\nq0\tp2\t2\n")
    assert mine(run_file=run, form="commas") == (2, [])
    assert "The passage id 'p,1' has in it what separates ids." in capfd.readouterr().err
