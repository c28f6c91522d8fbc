"""Each toolkit's training files as they are: what an example of each says."""

import gzip
import json
import logging
import pickle
import random

import pytest
from transformers import AutoTokenizer

from asyncval.api import InvalidData, TextForm, read_texts
from asyncval.data.texts import PRESETS
from trainer.arguments import DataArguments
from trainer.data import Collator, TrainingSet
from trainer.errors import InputError
from trainer.examples import Demands, Passage, Sample
from trainer.sources import TrainingFiles
from trainer.texts import open_texts
from trainer.wording import Wording


def write(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines))
    return path


@pytest.fixture
def texts(tmp_path):
    """Queries 1 and 2, and passages a to h with the text `A` to `H`."""
    return TrainingFiles(
        query_file=write(tmp_path / "queries.tsv", "1\tone", "2\ttwo"),
        corpus_file=write(
            tmp_path / "corpus.tsv", *[f"{each}\t{each.upper()}" for each in "abcdefgh"]
        ),
    )


def also(files, **changes):
    return TrainingFiles(
        **{
            "query_file": files.query_file,
            "corpus_file": files.corpus_file,
            "wording": files.wording,
            **changes,
        }
    )


def first_samples(path, *, num_passages=2, num_epochs=1, index=0, teacher=False, **rest):
    demands = Demands(num_passages=num_passages, teacher_scores=teacher)
    examples = TrainingSet([str(path)], demands=demands, seed=0, **rest)
    return [examples[epoch, index] for epoch in range(num_epochs)]


def passages_of(samples, *, what="text"):
    """Return (all positives that were drawn, all negatives)."""
    return (
        {getattr(sample.passages[0], what) for sample in samples},
        {getattr(each, what) for sample in samples for each in sample.passages[1:]},
    )


def test_tevatrons_and_openmatchs_token_ids_get_the_tokenizers_special_ones(tmp_path, model_folder):
    path = write(
        tmp_path / "t.json", {"query": [7, 8], "positives": [[9, 10, 11, 12]], "negatives": [[6]]}
    )
    [sample] = first_samples(path)
    assert sample == Sample((7, 8), [Passage((9, 10, 11, 12)), Passage((6,))])
    collate = Collator(
        tokenizer=AutoTokenizer.from_pretrained(model_folder), q_max_len=8, p_max_len=5
    )
    batch = collate([sample])
    assert batch["query"]["input_ids"].tolist() == [[2, 7, 8, 3]]
    # The length counts the special tokens.
    assert batch["passage"]["input_ids"].tolist() == [[2, 9, 10, 11, 3], [2, 6, 3, 0, 0]]
    assert batch["passage"]["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]


def test_token_ids_are_embedded_as_their_text_is(tmp_path, model_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    collate = Collator(tokenizer=tokenizer, q_max_len=4, p_max_len=5)
    query, passage = "word1 word2 word3", "word4 word5"
    ids = [
        tuple(tokenizer(each, add_special_tokens=False)["input_ids"]) for each in (query, passage)
    ]
    as_text, as_ids = (collate([Sample(a, [Passage(b)])]) for a, b in ((query, passage), ids))
    mixed = collate([Sample(query, [Passage(passage)]), Sample(ids[0], [Passage(ids[1])])])
    for side in ("query", "passage"):
        for name in ("input_ids", "attention_mask"):
            assert as_text[side][name].tolist() == as_ids[side][name].tolist()
            assert mixed[side][name].tolist() == as_text[side][name].tolist() * 2


@pytest.mark.parametrize(
    ("ids", "prefix", "complaint"),
    [
        ((2, 7, 3), "", "token ids with special tokens in them (2 ... 3)"),
        ((7, 8), "query: ", "has token ids, and a prefix is text"),
    ],
)
def test_token_ids_that_do_not_fit_tokenizer_or_flags_are_refused(
    model_folder, ids, prefix, complaint
):
    collate = Collator(
        tokenizer=AutoTokenizer.from_pretrained(model_folder),
        q_max_len=4,
        p_max_len=4,
        query_prefix=prefix,
    )
    with pytest.raises(InputError) as caught:
        collate.check(Sample(ids, [Passage("p")]))
    assert complaint in str(caught.value)


def test_openmatchs_lists_of_token_ids_have_scores(tmp_path):
    path = write(tmp_path / "t.jsonl", {"query": [1], "docs": [[2], [3], [4]], "scores": [3, 2, 1]})
    [sample] = first_samples(path, num_passages=3, teacher=True)
    assert sample.passages[0] == Passage((2,), score=3)
    assert {each.text: each.score for each in sample.passages} == {(2,): 3, (3,): 2, (4,): 1}


def test_an_object_of_two_words_is_no_pair_of_judged_ids(tmp_path):
    path = write(tmp_path / "t.jsonl", '{"query":"q", "positive":"p"}')
    assert first_samples(path, num_passages=1) == [Sample("q", [Passage("p")])]


def test_tevatrons_second_form_names_passages_of_a_corpus(tmp_path, texts):
    row = {
        "query_id": "1",
        "query_text": "said here",
        "positive_document_ids": ["a"],
        "negative_document_ids": ["b", "c"],
    }
    without = {key: value for key, value in row.items() if key != "query_text"}
    path = write(tmp_path / "t.jsonl", row, without)
    samples = first_samples(path, num_epochs=9, files=texts)
    assert passages_of(samples) == ({"A"}, {"B", "C"})
    assert passages_of(samples, what="id") == ({"a"}, {"b", "c"})
    assert (samples[0].query, samples[0].query_id) == ("said here", "1")
    assert first_samples(path, index=1, files=texts)[0].query == "one"


def test_gpls_lines_are_a_margin_of_two_named_passages(tmp_path, texts):
    path = write(tmp_path / "gpl.tsv", "2\tc\td\t-1.25")
    [sample] = first_samples(path, files=texts, teacher=True)
    assert sample == Sample("two", [Passage("C", -1.25, "c"), Passage("D", 0.0, "d")], "2")


QRELS = [
    ("1 0 a 1", "1 0 b 0", "1 0 c 2", "2 0 h 1"),
    ("query-id\tcorpus-id\tscore", "1\ta\t1", "2\th\t1", "1\tc\t1"),
    ("1\ta,c", "2\th"),
]


@pytest.mark.parametrize("qrels", QRELS)
@pytest.mark.parametrize(
    "negatives",
    [
        ("1\tb,d,e", "2\ta,b"),
        ("2\ta b", "1\tb d e"),
        ("1\tb", "2\ta,b", "1\td,e"),
        (
            {"qid": 1, "pos": ["a"], "neg": {"bm25": ["b", "d"], "ance": ["d", "e"]}},
            {"qid": "2", "pos": ["h"], "neg": {"bm25": ["a"]}},
        ),
    ],
)
def test_each_judged_query_is_an_example_with_the_negatives_of_its_file(
    tmp_path, texts, qrels, negatives
):
    path = write(tmp_path / "qrels", *qrels)
    files = also(texts, neg_file=write(tmp_path / "negatives", *negatives))
    examples = TrainingSet([str(path)], demands=Demands(num_passages=2), seed=0, files=files)
    assert len(examples) == 2
    samples = [examples[epoch, 0] for epoch in range(40)]
    assert {(each.query, each.query_id) for each in samples} == {("one", "1")}
    assert passages_of(samples) == ({"A", "C"}, {"B", "D", "E"})


def test_a_judged_query_without_negatives_of_its_own_is_left_out_and_counted(
    tmp_path, texts, caplog
):
    path = write(tmp_path / "qrels", "9\ta", "1\ta", "8\tz", "2\tb")
    files = also(texts, neg_file=write(tmp_path / "negatives", "2\tc", "1\td", "7\te"))
    with caplog.at_level(logging.WARNING):
        examples = TrainingSet([str(path)], demands=Demands(num_passages=2), seed=0, files=files)
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 4 judged queries are left out: --neg_file has no line for them, for example '9'."
    ]
    for each in (examples, pickle.loads(pickle.dumps(examples))):
        samples = [each[0, index] for index in range(len(each))]
        assert [(one.query, [p.text for p in one.passages]) for one in samples] == [
            ("one", ["A", "D"]),
            ("two", ["B", "C"]),
        ]


def test_without_negatives_no_query_needs_a_line_of_them(tmp_path, texts, caplog):
    files = also(texts, neg_file=write(tmp_path / "negatives", "1\td"))
    path = write(tmp_path / "qrels", "1\ta", "2\tb")
    assert first_samples(path, num_passages=1, index=1, files=files)[0].query == "two"
    assert not caplog.records


def test_a_query_without_a_scored_positive_is_left_out_and_counted(tmp_path, texts, caplog):
    files = also(
        texts,
        neg_file=write(tmp_path / "negatives", "1\tb,c", "2\ta,b"),
        teacher_score_files=(
            write(tmp_path / "scores", "1 a 5", "1 b 1", "1 c 0", "2 a 1", "2 b 2"),
        ),
    )
    path = write(tmp_path / "qrels", "2\th", "1\ta")
    demands = Demands(num_passages=3, teacher_scores=True)
    with caplog.at_level(logging.WARNING):
        examples = TrainingSet([str(path)], demands=demands, seed=0, files=files)
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 2 judged queries are left out: no relevant passage of theirs has a teacher's score "
        "(--teacher_score_files), for example '2'."
    ]
    assert [examples[0, index].query_id for index in range(len(examples))] == ["1"]


def test_what_is_relevant_is_no_negative_and_only_the_first_k_are_drawn_from(tmp_path, texts):
    path = write(tmp_path / "qrels", "1 0 a 1", "1 0 b 1")
    files = also(
        texts, neg_file=write(tmp_path / "negatives", "1\tb,c,d,e,f"), sample_neg_from_topk=2
    )
    samples = first_samples(path, num_epochs=40, files=files)
    assert passages_of(samples) == ({"A", "B"}, {"C", "D"})


def test_without_negatives_they_are_drawn_from_the_corpus_but_for_the_relevant(tmp_path, texts):
    path = write(tmp_path / "qrels", "1 0 a 1", "1 0 b 1")
    samples = first_samples(path, num_passages=7, num_epochs=30, files=texts)
    assert passages_of(samples) == ({"A", "B"}, set("CDEFGH"))
    assert all(len({each.id for each in sample.passages}) == 7 for sample in samples)


SCORES = {"1": {"a": 5.0, "b": 1.5, "c": -2.0}}


def score_files(tmp_path, kind):
    lines = [
        f"{query} {each} {score}" for query, of in SCORES.items() for each, score in of.items()
    ]
    if kind == "lines":
        return (write(tmp_path / "scores.txt", *lines),)
    if kind == "brackets, two files":
        bracketed = [line.rpartition(" ")[0] + f" [{line.rpartition(' ')[2]}]" for line in lines]
        return write(tmp_path / "1.txt", *bracketed[:2]), write(tmp_path / "2.txt", *bracketed[2:])
    path = tmp_path / ("scores.pkl.gz" if "gz" in kind else "scores.pkl")
    whole_numbers = {int(query): of for query, of in SCORES.items()}
    content = pickle.dumps(whole_numbers)
    path.write_bytes(gzip.compress(content) if "gz" in kind else content)
    return (path,)


@pytest.mark.parametrize("kind", ["lines", "brackets, two files", "pickle", "pickle, gz"])
def test_scores_come_from_files_of_their_own_and_what_has_none_is_left_out(tmp_path, texts, kind):
    path = write(tmp_path / "qrels", "1\ta,h")
    files = also(
        texts,
        neg_file=write(tmp_path / "negatives", "1\tb,c,d"),
        teacher_score_files=score_files(tmp_path, kind),
    )
    samples = first_samples(path, num_passages=3, num_epochs=9, files=files, teacher=True)
    for sample in samples:
        assert {each.id: each.score for each in sample.passages} == SCORES["1"]
        assert sample.passages[0].id == "a"


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path, texts):
    class Harm:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    (tmp_path / "scores.pkl").write_bytes(pickle.dumps({"1": Harm()}))
    files = also(
        texts,
        neg_file=write(tmp_path / "negatives", "1\tb"),
        teacher_score_files=(tmp_path / "scores.pkl",),
    )
    with pytest.raises(InputError, match=r"builtins\.exec"):
        first_samples(write(tmp_path / "qrels", "1\ta"), files=files, teacher=True)
    assert not (tmp_path / "ran").exists()


def test_the_lists_of_msmarco_hard_negatives_may_have_scores_themselves(tmp_path, texts):
    row = {
        "qid": 1,
        "pos": [{"pid": "a", "ce-score": 4}],
        "neg": {"x": [{"pid": "b", "ce-score": 1}, {"pid": "c", "ce-score": None}]},
    }
    files = also(texts, neg_file=write(tmp_path / "negatives.jsonl", row))
    [sample] = first_samples(write(tmp_path / "qrels", "1\ta"), files=files, teacher=True)
    assert sample.passages == [Passage("A", 4.0, "a"), Passage("B", 1.0, "b")]


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.tsv", "corpus.tsv.gz"])
def test_a_template_words_passages_from_columns_once(tmp_path, name):
    records = [{"_id": "007", "title": "<text> NA", "text": '"quoted', "year": 1999}]
    if name == "corpus.jsonl":
        corpus = write(tmp_path / name, *records)
    else:
        content = "\n".join("\t".join(str(value) for value in each.values()) for each in records)
        packed = name.endswith(".gz")
        corpus = tmp_path / name
        corpus.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    wording = Wording(
        doc_template="Title: <title> Text: <text> (<year>)",
        query_template="Q <text>",
        doc_columns=("id", "title", "text", "year"),
    )
    files = TrainingFiles(
        query_file=write(tmp_path / "queries.tsv", "1\tone"), corpus_file=corpus, wording=wording
    )
    [sample] = first_samples(write(tmp_path / "qrels", "1\t007"), num_passages=1, files=files)
    assert sample.query == "Q one"
    assert sample.passages[0].text == 'Title: <text> NA Text: "quoted (1999)'


def test_templates_word_the_records_within_a_training_file_too(tmp_path):
    row = {
        "query": "q",
        "positive_passages": [{"docid": "1", "title": None, "text": "p", "meta": {"year": 7}}],
    }
    wording = Wording(
        query_template="query: <query>",
        doc_template="<title>[SEP]<text> <meta.year>",
    )
    files = TrainingFiles(wording=wording)
    [sample] = first_samples(write(tmp_path / "t.jsonl", row), num_passages=1, files=files)
    assert (sample.query, sample.passages[0].text) == ("query: q", "[SEP]p 7")


@pytest.mark.parametrize("template", [*PRESETS, "<title>\\n<text>", None])
def test_a_template_trains_on_the_texts_that_asyncval_validates(tmp_path, texts, template):
    rows = [
        {"_id": "1", "title": "A title", "text": " and text "},
        {"_id": "2", "title": "", "text": "text"},
        {"_id": "3", "title": "Done.", "text": "text"},
    ]
    corpus = write(tmp_path / "corpus.jsonl", *rows)
    files = also(texts, corpus_file=corpus, wording=Wording(doc_template=template))
    path = write(tmp_path / "qrels", *[f"1\t{row['_id']}" for row in rows])
    samples = first_samples(path, num_passages=1, num_epochs=30, files=files)
    validated = read_texts(
        corpus, option="--candidate_dir", form=TextForm(is_query=False, template=template)
    )
    assert {(sample.passages[0].id, sample.passages[0].text) for sample in samples} == {
        (text.id, text.content) for text in validated
    }


@pytest.mark.parametrize("template", ["tevatron_v11", ""])
def test_a_template_that_names_no_field_is_refused(template):
    with pytest.raises(InputError, match=r"--doc_template .*: there is no <column> in it"):
        DataArguments(train_file=["t"], doc_template=template)


def test_a_token_id_that_the_tokenizer_lacks_is_found_wherever_it_stands(tmp_path, texts):
    wording = Wording(num_tokens=50)
    rows = [{"query": [1], "positive": [2]}, {"query": [49], "positive": [50]}]
    path = write(tmp_path / "t.jsonl", *rows)
    with pytest.raises(InputError, match="line 2: the token id 50, but the tokenizer has only 50"):
        first_samples(path, num_passages=1, files=TrainingFiles(wording=wording))
    corpus = [{"_id": "a", "text": [3]}, {"_id": "b", "text": [4, 77]}]
    files = also(texts, corpus_file=write(tmp_path / "c.jsonl", *corpus), wording=wording)
    with pytest.raises(InputError, match=r"Corpus .*, line 2: the token id 77,"):
        first_samples(write(tmp_path / "qrels", "1\ta"), num_passages=1, files=files)


LISTINGS = [
    ("c.tsv", "id\ttext\ttitle\n1\thello\tT\nid\ttext\tQ\n"),
    ("c.tsv", "\ufeff1\thello\n2\tworld\n"),
    ("c.tsv", "\ufeff\ntext\tdocid\nhello\t 1 \n"),
    ("c.tsv", "1\tT\thello\t\n2\t\tworld\n"),
    ("c.TXT", "\n1\ta\r\n\r\n2\tb\r\n"),
    (
        "c.jsonl",
        '{"id": "row", "docid": "7", "text": "a"}\n{"_id": "8", "text_id": 9, "text": "b"}\n',
    ),
    ("c.jsonl", '\ufeff{"sample_id": 7, "title": "T", "text": "a"}\n'),
    ("c.jsonl", '{"query_id": "7", "query": "q", "text": "t", "title": "T"}\n'),
]


@pytest.mark.parametrize(("name", "content"), LISTINGS)
@pytest.mark.parametrize("word", [Wording().passage, Wording().named_query])
def test_a_file_says_to_the_trainer_what_it_says_to_asyncval(tmp_path, name, content, word):
    path = tmp_path / name
    path.write_bytes(content.encode())
    found = open_texts(path, option="--corpus_file", kind="Corpus", word=word)
    ids = [found.text_id(index) for index in range(len(found))]
    expected = [(text.id, text.content) for text in read_texts(path, option="--candidate_dir")]
    assert [(each, found[each]) for each in ids] == expected


@pytest.mark.parametrize("line", ["only-one", "a\tb\tc\td", "\ttext"])
def test_a_line_that_asyncval_refuses_is_refused_in_its_words(tmp_path, line):
    path = write(tmp_path / "corpus.tsv", "1\ta", line)
    with pytest.raises(InvalidData) as theirs:
        list(read_texts(path, option="--candidate_dir"))
    with pytest.raises(InputError) as ours:
        open_texts(path, option="--corpus_file", kind="Corpus", word=Wording().passage)
    assert str(ours.value) == f"Corpus {theirs.value}"


def test_column_names_without_an_id_are_refused():
    with pytest.raises(InputError, match=r"--doc_column_names docno,text: none of them is the id"):
        DataArguments(train_file=["t"], doc_column_names="docno,text")


def test_retromaes_tokenised_folders_are_read_where_they_lie(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    folders = {}
    for name, ids in (("queries", ["q7"]), ("corpus", ["a", "b", "c"])):
        folders[name] = tmp_path / name
        rows = {"id": ids, "input_ids": [[ord(each[-1]), row] for row, each in enumerate(ids)]}
        datasets.Dataset.from_dict(rows).save_to_disk(str(folders[name]), num_shards=len(ids))
        write(folders[name] / "mapping_id.txt", *[f"{each}\t{row}" for row, each in enumerate(ids)])
    files = TrainingFiles(
        query_file=folders["queries"],
        corpus_file=folders["corpus"],
        neg_file=write(tmp_path / "negatives", "q7\tb,c"),
    )
    path = write(tmp_path / "train_qrels.txt", "q7\ta")
    too_few = also(files, neg_file=files.neg_file, wording=Wording(num_tokens=50))
    with pytest.raises(InputError, match=r"queries': the token id 55, but the tokenizer has only"):
        first_samples(path, files=too_few)
    examples = TrainingSet([str(path)], demands=Demands(num_passages=3), seed=0, files=files)
    for each in (examples, pickle.loads(pickle.dumps(examples))):
        sample = each[0, 0]
        assert sample.query == (ord("7"), 0)
        assert [passage.text for passage in sample.passages[:1]] == [(ord("a"), 0)]
        assert {passage.text for passage in sample.passages[1:]} == {(ord("b"), 1), (ord("c"), 2)}


def test_a_row_that_a_tokenised_folder_does_not_have_is_found_at_the_start(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    folder = tmp_path / "corpus"
    folder.mkdir()
    table = arrow.table({"input_ids": [[1], [2]]})
    with arrow.ipc.new_stream(folder / "dataset.arrow", table.schema) as stream:
        stream.write_table(table)
    write(folder / "state.json", {"_data_files": [{"filename": "dataset.arrow"}]})
    write(folder / "mapping_id.txt", "a\t0", "b\t2")
    with pytest.raises(InputError, match=r"mapping_id\.txt', line 2: the row 2, but .* has only 2"):
        open_texts(folder, option="--corpus_file", kind="Corpus", word=Wording().passage)


def test_a_folder_of_files_is_one_data_set(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    for name in ("split00.json", "split01.jsonl"):
        write(folder / name, {"query": name, "positive": "p"})
    (folder / "README.md").write_text("# not data\n")
    examples = TrainingSet([str(folder)], demands=Demands(), seed=0)
    assert [examples[0, i].query for i in range(len(examples))] == ["split00.json", "split01.jsonl"]


def test_a_module_of_the_users_own_reads_its_form(tmp_path, monkeypatch):
    (tmp_path / "ours.py").write_text(
        "from trainer.examples import Example, Passage\n"
        "from trainer.sources import LineExamples\n"
        "def parse(line):\n"
        "    query, passage = line.strip().split('=')\n"
        "    return Example(query=query, positives=[Passage(passage)], negatives=[])\n"
        "def open_source(path, *, files, demands):\n"
        "    return LineExamples(path, parse=parse, demands=demands)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path / "t.ours", "q=p")
    assert first_samples(path, num_passages=1, data_format="ours")[0] == Sample("q", [Passage("p")])


@pytest.mark.parametrize("name", ["json", "trainer.formats", "nowhere"])
def test_a_form_that_is_none_is_refused(tmp_path, name):
    path = write(tmp_path / "t.jsonl", {"query": "q", "positive": "p"})
    with pytest.raises(
        InputError, match=rf"^--train_format '{name}' is not known\. Use auto, ids, "
    ):
        first_samples(path, num_passages=1, data_format=name)


@pytest.mark.parametrize("flag", ["neg_file", "teacher_score_files", "sample_neg_from_topk"])
@pytest.mark.parametrize(
    "row",
    ['{"query": "q", "positive": "p"}', '{"query_id": "1", "positive_ids": ["a"]}', "1\ta\tb\t.5"],
)
def test_what_goes_with_judgements_is_refused_beside_examples(tmp_path, texts, row, flag):
    beside = write(tmp_path / "beside", "1\tb")
    value = {"neg_file": beside, "teacher_score_files": (beside,), "sample_neg_from_topk": 5}[flag]
    path = write(tmp_path / "train", row)
    with pytest.raises(InputError, match=rf"^--{flag} goes with judgements, but the lines of"):
        first_samples(path, num_passages=1, files=also(texts, **{flag: value}))


def test_negatives_that_are_drawn_more_than_once_are_warned_of_with_their_number(tmp_path, caplog):
    rows = [{"query": "q", "positive": "p", "negatives": ["n"] * number} for number in (1, 2, 3)]
    with caplog.at_level(logging.WARNING):
        first_samples(write(tmp_path / "t.jsonl", *rows), num_passages=4)
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 3 examples have fewer than 3 negatives: theirs are drawn more than once."
    ]


@pytest.mark.parametrize(
    ("training", "changes", "complaint"),
    [
        ("1\ta", {"corpus_file": None}, "names texts by their ids. Give --corpus_file a file"),
        ("1\ta", {"query_file": None}, "names texts by their ids. Give --train_query_file a file"),
        ("1\tz", {}, "query '1': the passage 'z' is not in corpus '"),
        ("9\ta", {}, "query '9': the query '9' is not in query file '"),
        (
            "1\ta",
            {"neg_file": "2\tb"},
            "none of the 1 judged queries can be trained on: --neg_file has no line for them, for "
            "example '1'. Do the files belong together?",
        ),
        ("1\ta", {"neg_file": '{"qid": 1, "neg": {}}'}, "query '1': no negatives, but --train_n"),
        (
            "1\ta",
            {"sample_neg_from_topk": 3},
            "--sample_neg_from_topk takes the first of --neg_file",
        ),
        ("1\ta", {"neg_file": "1\ta"}, "query '1': no negatives, but --train_n_passages 3 asks"),
        ("1\ta", {"neg_file": "1\tb,z"}, "query '1': the passage 'z' is not in corpus '"),
        ("1\ta", {"neg_file": "1"}, "', line 1: '1' is no query, tab and ids of passages."),
        ("1\ta", {"neg_file": "{}"}, '\', line 1: no "qid", or no "neg" with the lists'),
        ("1\ta,b,c,d,e,f,g", {}, "the corpus has too few passages to draw negatives from"),
        ("1\t0\ta\tx", {}, "line 1: the margin 'x' that is not a number."),
        ('{"query_id": "1", "positive_document_ids": []}', {}, 'no "positive_document_ids".'),
        ('{"query_id": "9", "positive_ids": ["a"]}', {}, "no negatives"),
        ("1\ta\tb\t1.5", {}, "line 1: 1 negatives"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(tmp_path, texts, training, changes, complaint):
    if isinstance(changes.get("neg_file"), str):
        changes = {"neg_file": write(tmp_path / "negatives", changes["neg_file"])}
    path = write(tmp_path / "train", training)
    teacher = "1.5" in training
    with pytest.raises(InputError) as caught:
        first_samples(path, num_passages=3, files=also(texts, **changes), teacher=teacher)
    assert "\n" not in str(caught.value)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "complaint"),
    [
        ("1 a 5", "query '1': no negatives, but --train_n_passages 3 asks for 2"),
        (
            "1 b 5\n1 c 1",
            "no relevant passage of theirs has a teacher's score (--teacher_score_files)",
        ),
        ("1 a five", "line 1: the score 'five' that is not a finite number."),
        ("1 a", "line 1: '1 a' is not `query passage score`."),
        ("1 a nan", "line 1: the score 'nan' that is not a finite number."),
        ("", "has no score in it."),
        (pickle.dumps({}), "no score"),
        (pickle.dumps({"1": {}}), "no score"),
        (b"\x1f\x8bgarbage", "is a broken gzip file"),
    ],
)
def test_scores_that_are_missing_or_broken_are_refused(tmp_path, texts, scores, complaint):
    path = tmp_path / "scores"
    path.write_bytes(scores if isinstance(scores, bytes) else scores.encode())
    files = also(
        texts,
        neg_file=write(tmp_path / "negatives", "1\tb,c"),
        teacher_score_files=(path,),
    )
    with pytest.raises(InputError) as caught:
        first_samples(write(tmp_path / "q", "1\ta"), num_passages=3, files=files, teacher=True)
    assert complaint in str(caught.value)


def test_a_large_file_stays_on_disk(tmp_path):
    """Its index takes 16 bytes a line, whatever the lines are."""
    draw = random.Random(0)
    path = tmp_path / "t.jsonl"
    with path.open("w") as lines:
        for number in range(2000):
            text = "".join(draw.choices("abcdef", k=500))
            lines.write(json.dumps({"query": str(number), "positive": text}) + "\n")
    examples = TrainingSet([str(path)], demands=Demands(), seed=0)
    assert len(pickle.dumps(examples)) < 20 * 2000 < path.stat().st_size / 20
