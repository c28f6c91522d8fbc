import gzip
import json
import pickle

import pytest
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from trainer.data import Collator, EpochSampler, TrainingSet
from trainer.errors import InputError


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def many_negatives(query):
    return {"query": query, "positive": f"{query} +", "negatives": [f"{query} {i}" for i in "abcd"]}


def draws(training_set, epoch):
    return [training_set[epoch, index] for index in range(len(training_set))]


def test_the_same_seed_draws_the_same_and_another_seed_or_epoch_something_else(tmp_path):
    path = write(tmp_path / "t.jsonl", *[many_negatives(str(i)) for i in range(10)])
    examples = TrainingSet([path], num_passages=3, seed=1)
    again = TrainingSet([path], num_passages=3, seed=1)
    other = TrainingSet([path], num_passages=3, seed=2)
    assert draws(examples, 0) == draws(again, 0)
    assert draws(examples, 0) != draws(examples, 1)
    assert draws(examples, 0) != draws(other, 0)


def test_a_sample_is_the_positive_and_distinct_negatives(tmp_path):
    path = write(tmp_path / "t.jsonl", many_negatives("q"))
    query, passages = TrainingSet([path], num_passages=4, seed=0)[0, 0]
    assert query == "q"
    assert passages[0] == "q +"
    assert len(set(passages)) == 4


def test_too_few_negatives_are_drawn_with_replacement(tmp_path):
    path = write(tmp_path / "t.jsonl", {"query": "q", "positive": "p", "negatives": ["n"]})
    _, passages = TrainingSet([path], num_passages=4, seed=0)[0, 0]
    assert passages == ["p", "n", "n", "n"]


def test_one_passage_per_query_needs_no_negatives(tmp_path):
    path = write(tmp_path / "t.jsonl", {"query": "q", "positive": "p"})
    assert TrainingSet([path], num_passages=1, seed=0)[0, 0] == ("q", ["p"])


def test_every_positive_has_its_turn(tmp_path):
    path = write(tmp_path / "t.jsonl", {"query": "q", "positives": ["one", "two"]})
    examples = TrainingSet([path], num_passages=1, seed=0)
    assert {examples[epoch, 0][1][0] for epoch in range(20)} == {"one", "two"}


def test_tevatrons_form_joins_title_and_text_by_one_space(tmp_path):
    row = {
        "query_id": "1",
        "query": "q",
        "positive_passages": [{"docid": "2", "title": "Title", "text": "text"}],
        "negative_passages": [{"docid": "3", "title": "", "text": "no title"}],
    }
    path = write(tmp_path / "t.jsonl", row)
    sample = TrainingSet([path], num_passages=2, seed=0)[0, 0]
    assert sample == ("q", ["Title text", "no title"])


def test_several_files_plain_and_gzip_are_one_data_set_and_blank_lines_do_not_count(tmp_path):
    plain = tmp_path / "a.jsonl"
    plain.write_text('\n{"query": "é", "positive": "a"}\n\n{"query": "2", "positive": "b"}')
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"query": "3", "positive": "c"}\n'))
    examples = TrainingSet([str(plain), str(packed)], num_passages=1, seed=0)
    assert draws(examples, 0) == [("é", ["a"]), ("2", ["b"]), ("3", ["c"])]


def test_the_copy_of_a_gzip_file_goes_with_its_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"query": "3", "positive": "c"}\n'))
    examples = TrainingSet([str(packed)], num_passages=1, seed=0)
    assert list(tmp_path.glob("trainer-*"))
    del examples
    assert not list(tmp_path.glob("trainer-*"))


def test_a_spawned_worker_can_take_the_data_set_along(tmp_path):
    path = write(tmp_path / "t.jsonl", many_negatives("q"))
    examples = TrainingSet([path], num_passages=3, seed=0)
    assert draws(pickle.loads(pickle.dumps(examples)), 5) == draws(examples, 5)


def test_workers_give_what_one_process_gives_in_every_epoch(tmp_path):
    path = write(tmp_path / "t.jsonl", *[many_negatives(str(i)) for i in range(12)])
    examples = TrainingSet([path], num_passages=3, seed=0)
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
    batch = collate([("word1 word2 word3", ["word4", "word5 word6"])] * 2)
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
        ('{"query": "q", "positive": 3}', "a passage that is not a string"),
        ('{"query": "q", "positives": "p"}', '"positives" is a str and should be a list'),
        ('{"query": "q", "positive_passages": [{"docid": "1"}]}', 'without a "text" string'),
    ],
)
def test_a_bad_line_is_named_before_the_training_starts(tmp_path, line, complaint):
    path = tmp_path / "t.jsonl"
    path.write_text('{"query": "q", "positive": "p"}\n' + line + "\n")
    with pytest.raises(InputError) as caught:
        TrainingSet([str(path)], num_passages=1, seed=0)
    assert str(caught.value).startswith(f"Training file {str(path)!r}, line 2: ")
    assert complaint in str(caught.value)


def test_negatives_that_are_asked_for_but_not_there_are_an_error_with_the_line(tmp_path):
    path = write(tmp_path / "t.jsonl", many_negatives("q"), {"query": "q", "positive": "p"})
    with pytest.raises(InputError, match=r"line 2: no negatives, but --train_n_passages 8 asks"):
        TrainingSet([path], num_passages=8, seed=0)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "No training example in"), (b"\x1f\x8bgarbage", "is a broken gzip file")],
)
def test_an_empty_or_broken_file_is_refused(tmp_path, content, complaint):
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        TrainingSet([str(path)], num_passages=1, seed=0)
