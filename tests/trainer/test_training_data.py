import gzip
import json
import pickle

import pytest
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from trainer.data import Collator, EpochSampler, TrainingSet
from trainer.errors import InputError
from trainer.examples import Demands, Passage, Sample


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def many_negatives(query):
    return {"query": query, "positive": f"{query} +", "negatives": [f"{query} {i}" for i in "abcd"]}


def texts(sample):
    return sample.query, [passage.text for passage in sample.passages]


def draws(training_set, epoch):
    return [texts(training_set[epoch, index]) for index in range(len(training_set))]


def test_the_same_seed_draws_the_same_and_another_seed_or_epoch_something_else(tmp_path):
    path = write(tmp_path / "t.jsonl", *[many_negatives(str(i)) for i in range(10)])
    examples = TrainingSet([path], demands=Demands(num_passages=3), seed=1)
    again = TrainingSet([path], demands=Demands(num_passages=3), seed=1)
    other = TrainingSet([path], demands=Demands(num_passages=3), seed=2)
    assert draws(examples, 0) == draws(again, 0)
    assert draws(examples, 0) != draws(examples, 1)
    assert draws(examples, 0) != draws(other, 0)


def test_a_sample_is_the_positive_and_distinct_negatives(tmp_path):
    path = write(tmp_path / "t.jsonl", many_negatives("q"))
    query, passages = texts(TrainingSet([path], demands=Demands(num_passages=4), seed=0)[0, 0])
    assert query == "q"
    assert passages[0] == "q +"
    assert len(set(passages)) == 4


def test_too_few_negatives_are_drawn_with_replacement(tmp_path):
    path = write(tmp_path / "t.jsonl", {"query": "q", "positive": "p", "negatives": ["n"]})
    _, passages = texts(TrainingSet([path], demands=Demands(num_passages=4), seed=0)[0, 0])
    assert passages == ["p", "n", "n", "n"]


def test_one_passage_per_query_needs_no_negatives(tmp_path):
    path = write(tmp_path / "t.jsonl", {"query": "q", "positive": "p"})
    sample = TrainingSet([path], demands=Demands(num_passages=1), seed=0)[0, 0]
    assert texts(sample) == ("q", ["p"])


def test_every_positive_has_its_turn(tmp_path):
    path = write(tmp_path / "t.jsonl", {"query": "q", "positives": ["one", "two"]})
    examples = TrainingSet([path], demands=Demands(num_passages=1), seed=0)
    assert {examples[epoch, 0].passages[0].text for epoch in range(20)} == {"one", "two"}


def test_tevatrons_form_joins_title_and_text_by_one_space(tmp_path):
    row = {
        "query_id": "1",
        "query": "q",
        "positive_passages": [{"docid": "2", "title": "Title", "text": "text"}],
        "negative_passages": [{"docid": "3", "title": "", "text": "no title"}],
    }
    path = write(tmp_path / "t.jsonl", row)
    sample = TrainingSet([path], demands=Demands(num_passages=2), seed=0)[0, 0]
    assert sample == Sample("q", [Passage("Title text", id="2"), Passage("no title", id="3")], "1")


def test_several_files_plain_and_gzip_are_one_data_set_and_blank_lines_do_not_count(tmp_path):
    plain = tmp_path / "a.jsonl"
    plain.write_text('\n{"query": "é", "positive": "a"}\n\n{"query": "2", "positive": "b"}')
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"query": "3", "positive": "c"}\n'))
    examples = TrainingSet([str(plain), str(packed)], demands=Demands(num_passages=1), seed=0)
    assert draws(examples, 0) == [("é", ["a"]), ("2", ["b"]), ("3", ["c"])]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path, pack):
    content = '\ufeff{"query": "1", "positive": "a"}\n{"query": "2", "positive": "b"}\n'
    (tmp_path / "t.jsonl").write_bytes(pack(content.encode()))
    path = str(tmp_path / "t.jsonl")
    examples = TrainingSet([path], demands=Demands(num_passages=1), seed=0)
    assert draws(examples, 0) == [("1", ["a"]), ("2", ["b"])]


def test_the_copy_of_a_gzip_file_goes_with_its_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"query": "3", "positive": "c"}\n'))
    examples = TrainingSet([str(packed)], demands=Demands(num_passages=1), seed=0)
    assert list(tmp_path.glob("trainer-*"))
    del examples
    assert not list(tmp_path.glob("trainer-*"))


def test_a_spawned_worker_can_take_the_data_set_along(tmp_path):
    path = write(tmp_path / "t.jsonl", many_negatives("q"))
    examples = TrainingSet([path], demands=Demands(num_passages=3), seed=0)
    assert draws(pickle.loads(pickle.dumps(examples)), 5) == draws(examples, 5)


def test_workers_give_what_one_process_gives_in_every_epoch(tmp_path):
    path = write(tmp_path / "t.jsonl", *[many_negatives(str(i)) for i in range(12)])
    examples = TrainingSet([path], demands=Demands(num_passages=3), seed=0)
    sampler = EpochSampler(len(examples), seed=0)
    loaders = [
        DataLoader(examples, sampler=sampler, batch_size=4, collate_fn=list),
        DataLoader(
            examples,
            sampler=sampler,
            batch_size=4,
            collate_fn=list,
            num_workers=2,
            persistent_workers=True,
        ),
    ]
    epochs = []
    for sampler.epoch in range(2):
        alone, workers = (list(loader) for loader in loaders)
        assert alone == workers
        epochs.append(alone)
    assert epochs[0] != epochs[1]


def test_a_batch_holds_prefixed_texts_cut_to_their_lengths(model_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    collate = Collator(tokenizer=tokenizer, q_max_len=4, p_max_len=6, query_prefix="word9: ")
    batch = collate([Sample("word1 word2 word3", [Passage("word4"), Passage("word5 word6")])] * 2)
    assert batch["query"]["input_ids"].shape == (2, 4)
    assert tokenizer.decode(batch["query"]["input_ids"][0]) == "[CLS] word9 : [SEP]"
    assert batch["passage"]["input_ids"].shape == (4, 4)
    assert batch["passage"]["attention_mask"].sum(dim=1).tolist() == [3, 4, 3, 4]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[1]", "a list where an object should be"),
        ('{"positive": "p"}', 'no "query" string'),
        ('{"query": "q"}', 'no "positive"'),
        ('{"query": "q", "positive": 3}', "a passage that is not a string, a list"),
        ('{"query": "q", "positives": "p"}', '"positives" is a str and should be a list'),
        (
            '{"query": "q", "positive_passages": [{"docid": "1"}]}',
            'no text. Each needs "text"',
        ),
    ],
)
def test_a_bad_line_is_named_before_the_training_starts(tmp_path, line, complaint):
    path = tmp_path / "t.jsonl"
    path.write_text('{"query": "q", "positive": "p"}\n' + line + "\n")
    with pytest.raises(InputError) as caught:
        TrainingSet([str(path)], demands=Demands(num_passages=1), seed=0)
    assert str(caught.value).startswith(f"Training file {str(path)!r}, line 2: ")
    assert complaint in str(caught.value)


def test_negatives_that_are_asked_for_but_not_there_are_an_error_with_the_line(tmp_path):
    path = write(tmp_path / "t.jsonl", many_negatives("q"), {"query": "q", "positive": "p"})
    with pytest.raises(InputError, match=r"line 2: no negatives, but --train_n_passages 8 asks"):
        TrainingSet([path], demands=Demands(num_passages=8), seed=0)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "t.jsonl.gz': no training example in it"),
        (b"\x1f\x8bgarbage", "is a broken gzip file"),
        (gzip.compress(b"{}", mtime=0)[:10] + b"\xff" * 20, "is a broken gzip file"),
    ],
)
def test_an_empty_or_broken_file_is_refused(tmp_path, content, complaint):
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        TrainingSet([str(path)], demands=Demands(num_passages=1), seed=0)


TEXTS = {"query": "q", "positive": "p", "negatives": ["n", "m"]}


@pytest.mark.parametrize(
    ("row", "scores"),
    [
        ({**TEXTS, "scores": [3, 2.5, -1]}, {"p": 3, "n": 2.5, "m": -1}),
        (
            {"query": "q", "positives": ["p"], "negatives": ["n"], "scores": [1, 2]},
            {"p": 1, "n": 2},
        ),
        ({"query": "q", "positive": "p", "negative": "n", "score": 4.5}, {"p": 4.5, "n": 0}),
        ({"query": "q", "docs": ["p", "n", "m"], "scores": [1, 2, 3]}, {"p": 1, "n": 2, "m": 3}),
        (
            {
                "query_id": "1",
                "query": "q",
                "passages": [{"title": "", "text": "p"}, {"title": "t", "text": "n"}],
                "scores": [1, 2],
            },
            {"p": 1, "t n": 2},
        ),
        (
            {
                "query": "q",
                "positive_passages": [{"docid": "1", "text": "p", "score": 0.5}],
                "negative_passages": [{"docid": "2", "text": "n", "score": -7}],
            },
            {"p": 0.5, "n": -7},
        ),
    ],
)
def test_a_passage_keeps_its_teachers_score_in_every_form(tmp_path, row, scores):
    path = write(tmp_path / "t.jsonl", row)
    demands = Demands(num_passages=len(scores), teacher_scores=True)
    sample = TrainingSet([path], demands=demands, seed=0)[0, 0]
    assert sample.passages[0].text == "p"
    assert {passage.text: passage.score for passage in sample.passages} == scores


def test_a_batch_holds_the_scores_in_the_order_of_its_passages(model_folder, tmp_path):
    rows = [{**TEXTS, "scores": [3, 2, 1]}, {**TEXTS, "scores": [6, 5, 4]}]
    path = write(tmp_path / "t.jsonl", *rows)
    examples = TrainingSet([path], demands=Demands(num_passages=3, teacher_scores=True), seed=0)
    collate = Collator(
        tokenizer=AutoTokenizer.from_pretrained(model_folder), q_max_len=4, p_max_len=4
    )
    samples = [examples[1, 0], examples[1, 1]]
    expected = [[passage.score for passage in sample.passages] for sample in samples]
    assert collate(samples)["teacher"].tolist() == expected


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({**TEXTS, "scores": [1, 2]}, "2 scores for 3 passages. Each line"),
        ({**TEXTS, "scores": "1 2 3"}, '"scores" is a str and should be a list. Each line'),
        ({**TEXTS, "scores": [1, 2, None]}, "the score None that is not a finite number."),
        ({**TEXTS, "scores": [1, 2, float("nan")]}, "the score nan that is not a finite number."),
        ({**TEXTS, "scores": [1, 2, "3"]}, "the score '3' that is not a finite number. Each"),
        ({**TEXTS, "score": 3}, '"score" without "positive" and "negative". Each'),
        ({"query": "q", "docs": ["p", "n"]}, '"docs" without "scores". Each line'),
        ({"query": "q", "docs": [], "scores": []}, 'no "positive", "positives", '),
        ({"query": "q", "docs": [5, 8], "scores": [1, 2]}, "a passage that is not a string, a"),
        (
            {"query": "q", "positives": [{"text": "p", "score": 1}], "negatives": ["n", "m"]},
            "1 of 3 passages have a score and the rest none.",
        ),
        (TEXTS, "no teacher scores, but --objective asks for them. Give each"),
        (
            {"query": "q", "positive": "p", "negative": "n", "score": 1},
            "1 negatives, but --train_n",
        ),
    ],
)
def test_scores_of_a_wrong_shape_are_refused_with_file_and_line(tmp_path, row, complaint):
    path = write(tmp_path / "t.jsonl", {**TEXTS, "scores": [1, 2, 3]}, row)
    with pytest.raises(InputError) as caught:
        TrainingSet([path], demands=Demands(num_passages=3, teacher_scores=True), seed=0)
    assert str(caught.value).startswith(f"Training file {path!r}, line 2: {complaint}")
