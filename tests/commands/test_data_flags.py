"""`asyncval eval` and `asyncval split` on one collection in every form that it can have."""

import json
from dataclasses import replace
from pathlib import Path

import ir_datasets
import pytest
from rich.console import Console

from asyncval.commands.eval import evaluate_named
from asyncval.commands.preparation import describe_plan, read_collection, tasks_of, worker_setup
from asyncval.commands.split import split_corpus
from asyncval.config import EvalConfig, SplitConfig, TaskEntry
from asyncval.core.errors import InvalidOption
from asyncval.core.types import State
from asyncval.data.embeddings import read_embeddings
from tests.e2e.conftest import Collection
from tests.models import make_tokenizer, save_huggingface


@pytest.fixture
def collection(tmp_path):
    return Collection(tmp_path / "data")


@pytest.fixture
def checkpoint(tmp_path):
    return save_huggingface(tmp_path / "training" / "checkpoint-7", seed=7)


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def metrics(checkpoint, tmp_path, **options):
    """Return what one evaluation measures, and write its runs to `out`."""
    config = EvalConfig(
        checkpoints=(checkpoint,),
        devices=("cpu",),
        depth=10,
        cache_dir=tmp_path / "cache",
        **{"output_dir": tmp_path / "out", **options},
    )
    [row] = evaluate_named(config, Console(quiet=True))
    assert row.state is State.DONE, row.reason
    assert row.result is not None
    return dict(row.result.metrics)


def as_headed_tsv(texts, folder):
    lines = [f"{each['text']}\t{each['text_id']}" for each in texts]
    folder.with_suffix(".tsv").write_text("\n".join(["text\tid", *lines]))
    return {"path": folder.with_suffix(".tsv")}


def as_named_tsv(texts, folder):
    lines = [f"{each['text']}\t-\t{each['text_id']}\n" for each in texts]
    folder.with_suffix(".txt").write_text("".join(lines))
    return {"path": folder.with_suffix(".txt"), "columns": "body,x,id", "template": "<body>"}


def as_free_json(texts, folder):
    lines = [json.dumps({"id": each["text_id"], "my": {"body": each["text"]}}) for each in texts]
    folder.with_suffix(".json").write_text("\n".join(lines))
    return {"path": folder.with_suffix(".json"), "template": "<my.body>"}


def as_token_ids(texts, folder):
    tokenizer = make_tokenizer()
    lines = [
        json.dumps({**each, "text": tokenizer.encode(each["text"], add_special_tokens=False)})
        for each in texts
    ]
    folder.with_suffix(".jsonl").write_text("\n".join(lines))
    return {"path": folder.with_suffix(".jsonl")}


def as_parquet(texts, folder):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(texts), folder.with_suffix(".parquet"))
    return {"path": folder.with_suffix(".parquet")}


def as_saved_dataset(texts, folder):
    arrow = pytest.importorskip("pyarrow")
    tokenizer = make_tokenizer()
    rows = [
        {
            "id": each["text_id"],
            "input_ids": tokenizer.encode(each["text"], add_special_tokens=False),
        }
        for each in texts
    ]
    folder.mkdir(parents=True)
    table = arrow.Table.from_pylist(rows)
    with arrow.ipc.new_stream(folder / "dataset.arrow", table.schema) as stream:
        stream.write_table(table)
    state = {"_data_files": [{"filename": "dataset.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    ids = [f"{each['text_id']}\t{row}\n" for row, each in enumerate(texts)]
    (folder / "mapping_id.txt").write_text("".join(ids))
    return {"path": folder}


def as_ir_dataset(texts, folder):
    path = folder.with_suffix(".tsv")
    path.write_text("".join(f"{each['text_id']}\t{each['text']}\n" for each in texts))
    kind = "queries_tsv" if folder.name == "queries" else "docs_tsv"
    name = folder.as_posix().strip("/")
    ir_datasets.registry.register(name, ir_datasets.create_dataset(**{kind: str(path)}))
    return {"path": Path(f"ir_datasets:{name}")}


FORMS = [
    as_headed_tsv,
    as_named_tsv,
    as_free_json,
    as_token_ids,
    as_parquet,
    as_saved_dataset,
    as_ir_dataset,
]


@pytest.mark.parametrize("convert", FORMS)
def test_every_form_of_the_same_texts_gives_the_same_run(collection, checkpoint, tmp_path, convert):
    plain = {
        "query_file": (collection.queries,),
        "candidate_dir": (collection.corpus,),
        "qrel_file": (collection.qrels,),
    }
    expected = metrics(checkpoint, tmp_path, **plain, output_dir=tmp_path / "plain")
    queries = convert(records(collection.queries), tmp_path / "queries")
    passages = convert(records(collection.corpus / "split00.jsonl"), tmp_path / "passages")
    found = metrics(
        checkpoint,
        tmp_path,
        query_file=(queries["path"],),
        candidate_dir=(passages["path"],),
        qrel_file=(collection.qrels,),
        query_column_names=queries.get("columns"),
        doc_column_names=passages.get("columns"),
        query_template=queries.get("template"),
        doc_template=passages.get("template"),
    )
    assert found == expected
    run = Path("runs", "checkpoint-7.trec")
    assert (tmp_path / "out" / run).read_bytes() == (tmp_path / "plain" / run).read_bytes()


@pytest.mark.parametrize("convert", FORMS)
def test_a_subset_of_every_form_has_what_the_judgements_want(
    collection, checkpoint, tmp_path, convert
):
    queries = convert(records(collection.queries), tmp_path / "queries")
    passages = convert(records(collection.corpus / "split00.jsonl"), tmp_path / "passages")
    options = {
        "doc_column_names": passages.get("columns"),
        "doc_template": passages.get("template"),
    }
    subset = tmp_path / "subset"
    split_corpus(
        SplitConfig(
            candidate_dir=(passages["path"],),
            query_file=(queries["path"],),
            query_column_names=queries.get("columns"),
            query_template=queries.get("template"),
            qrel_file=(collection.qrels,),
            output_dir=subset,
            from_checkpoint=checkpoint,
            depth=(1,),
            devices=("cpu",),
            cache_dir=tmp_path / "cache",
            **options,
        )
    )
    [shard] = subset.glob("split*")
    keeps_lines = convert in (as_named_tsv, as_free_json, as_token_ids)
    assert shard.suffix == (".txt" if convert is as_named_tsv else ".jsonl")
    if keeps_lines:
        whole = passages["path"].read_bytes().splitlines()
        assert {*shard.read_bytes().splitlines()} <= {*whole}
    config = EvalConfig(
        checkpoints=(checkpoint,),
        query_file=(collection.queries,),
        candidate_dir=(subset,),
        qrel_file=(collection.qrels,),
        **options,
    )
    read = read_collection(config, output_dir=None)
    assert 10 <= read.corpora[""].num_passages < 40
    assert not any("relevant passages" in remark for remark in read.remarks)


def test_embeddings_that_are_written_are_read_again(collection, checkpoint, tmp_path):
    metrics(
        checkpoint,
        tmp_path,
        query_file=(collection.queries,),
        candidate_dir=(collection.corpus,),
        qrel_file=(collection.qrels,),
        write_embeddings=True,
    )
    folder = tmp_path / "out" / "embeddings"
    queries, query_ids = read_embeddings([folder / "checkpoint-7.queries.npy"])
    passages, passage_ids = read_embeddings([folder / "checkpoint-7.passages.npy"])
    assert query_ids == [f"q{i}" for i in range(10)]
    assert passage_ids == [f"p{i}" for i in range(40)]
    best = {query_ids[q]: passage_ids[p] for q, p in enumerate((queries @ passages.T).argmax(1))}
    run = (tmp_path / "out" / "runs" / "checkpoint-7.trec").read_text().splitlines()
    firsts = [line.split() for line in run if line.split()[3] == "1"]
    assert best == {fields[0]: fields[2] for fields in firsts}


def folder_of(collection, folder, *, num_passages):
    """Write a BEIR folder of the collection's queries and some of its passages."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_text(collection.queries.read_text())
    lines = (collection.corpus / "split00.jsonl").read_text().splitlines()
    (folder / "corpus.jsonl").write_text("\n".join(lines[:num_passages]))
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\tp{i}\t1\n" for i in range(2, 6))
    )
    return folder


def test_each_task_is_measured_on_its_own_corpus_as_if_it_were_alone(
    collection, checkpoint, tmp_path
):
    folders = {
        "small": folder_of(collection, tmp_path / "beir1", num_passages=8),
        "whole": folder_of(collection, tmp_path / "beir2", num_passages=40),
    }
    tasks = tuple(f"{name}={folder}" for name, folder in folders.items())
    entry = TaskEntry(
        name="plain",
        query_file=collection.queries,
        candidate_dir=(collection.corpus,),
        qrel_file=collection.qrels,
    )
    found = metrics(checkpoint, tmp_path, task=tasks, tasks=(entry,))
    alone = {
        name: metrics(checkpoint, tmp_path, task=(f"{name}={folder}",), output_dir=None)
        for name, folder in folders.items()
    }
    alone["plain"] = metrics(checkpoint, tmp_path, tasks=(entry,), output_dir=None)
    assert found == {
        f"{name}/{measure}": value
        for name, values in alone.items()
        for measure, value in values.items()
    }
    assert len({found[f"{name}/RR@10"] for name in alone}) > 1
    runs = tmp_path / "out" / "runs"
    assert sorted(path.name for path in runs.iterdir()) == [
        f"checkpoint-7.{name}.trec" for name in ("plain", "small", "whole")
    ]
    small = (runs / "checkpoint-7.small.trec").read_text().splitlines()
    assert {line.split()[0] for line in small} == {"q2", "q3", "q4", "q5"}
    assert {line.split()[2] for line in small} == {f"p{i}" for i in range(8)}


@pytest.fixture
def config(collection, checkpoint, tmp_path):
    return EvalConfig(
        checkpoints=(checkpoint,),
        query_file=(collection.queries,),
        candidate_dir=(collection.corpus,),
        qrel_file=(collection.qrels,),
        cache_dir=tmp_path / "cache",
    )


def test_the_plan_is_another_one_for_other_texts_and_other_tasks(config, collection, tmp_path):
    folder = folder_of(collection, tmp_path / "beir", num_passages=40)
    bare = replace(config, query_file=(), candidate_dir=(), qrel_file=())
    variants = [
        config,
        replace(config, doc_template="tevatron"),
        replace(config, query_template="Query: <text>"),
        replace(config, text_format=("jsonl",)),
        replace(bare, task=(f"one={folder}",)),
        replace(bare, task=(f"two={folder}",)),
        replace(bare, task=(f"two={folder}", f"one={folder}")),
    ]
    plans = []
    for each in variants:
        read = read_collection(each, output_dir=None)
        plans.append(json.dumps(describe_plan(worker_setup(each, read, output_dir=None), "fp32")))
    assert len({*plans}) == len(variants)
    (collection.corpus / "split00.jsonl").rename(collection.corpus / "other.jsonl")
    again = read_collection(config, output_dir=None)
    assert (
        json.dumps(describe_plan(worker_setup(config, again, output_dir=None), "fp32"))
        == (plans[0])
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": ("a=x",)}, "--task has queries, passages and judgements of its own"),
        ({"candidate_dir": ()}, "--candidate_dir is missing: give .* or --task NAME=FOLDER"),
        ({"query_file": (), "candidate_dir": (), "qrel_file": (), "task": ("x",)}, "'x': give NA"),
    ],
)
def test_data_that_are_given_twice_or_not_at_all_are_refused(config, options, message):
    with pytest.raises(InvalidOption, match=message):
        tasks_of(replace(config, **options))


@pytest.mark.parametrize("names", [("a", "a"), ("a/b",), ("",), ("..",)])
def test_names_of_tasks_must_be_fit_for_files_and_different(config, collection, tmp_path, names):
    folder = folder_of(collection, tmp_path / "beir", num_passages=8)
    bare = replace(config, query_file=(), candidate_dir=(), qrel_file=())
    with pytest.raises(InvalidOption, match="must be a name of letters"):
        tasks_of(replace(bare, task=tuple(f"{name}={folder}" for name in names)))
