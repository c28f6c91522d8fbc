import json

import pytest
import torch
from transformers import AutoTokenizer

from asyncval.api import read_qrels
from trainer.data import Collator
from trainer.errors import InputError
from trainer.examples import Passage, Sample
from trainer.judgements import Judgements, known_relevant


@pytest.mark.parametrize(
    "content",
    [
        "1 0 a 1\n1 Q0 b 2\n1 0 c 0\n2 0 c 1\n",
        "query-id\tcorpus-id\tscore\n1\ta\t1\n1\tb\t2\n\n1\tc\t0\n2\tc\t1\n",
        "1\ta,b\n2\tc\n",
        "\ufeff1 0 a 1\n1 0 b 2\n2 0 c 1\n",
        "Query_ID\tdocno\tgrade\r\n1\ta\t1.0\r\n1\tb\t2\r\n2\tc\t1\r\n",
    ],
)
def test_passages_that_are_judged_relevant_to_a_query_are_found_in_a_batch(
    tmp_path, model_folder, content
):
    path = tmp_path / "qrels"
    path.write_text(content)
    collate = Collator(
        tokenizer=AutoTokenizer.from_pretrained(model_folder),
        q_max_len=4,
        p_max_len=4,
        judgements=Judgements(path),
    )
    batch = collate(
        [
            Sample("q", [Passage("p", id="a"), Passage("p", id="c")], "1"),
            Sample("q", [Passage("p", id="c"), Passage("p", id="b")], "2"),
            Sample("q", [Passage("p", id="z"), Passage("p", id="a")], "3"),
        ]
    )
    found = known_relevant(batch["relevant"], batch["passage_keys"])
    assert found.int().tolist() == [[1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0], [0] * 6]
    grades = read_qrels(path)
    assert {query: {each for each in of if of[each] >= 1} for query, of in grades.items()} == {
        "1": {"a", "b"},
        "2": {"c"},
    }


def test_what_is_relevant_to_a_query_is_no_negative_of_it_in_a_training(
    train, scored_file, tmp_path
):
    def loss(relevance):
        """Train where every passage is judged to be relevant to every query, or none is."""
        ids = [f"word{i}" for i in range(60)]
        lines = [f"{query} 0 {passage} {relevance}" for query in range(20) for passage in ids]
        (tmp_path / "qrels").write_text("\n".join([*lines, "other 0 word1 1"]))
        output = train(
            train_file=scored_file,
            qrels_file=tmp_path / "qrels",
            max_steps=1,
            save_steps=1,
            logging_steps=1,
        )
        state = json.loads((output / "checkpoint-1/trainer_state.json").read_text())
        return state["log_history"][0]["loss"]

    assert loss(relevance=1) == 0  # only the positive is left to choose from
    assert loss(relevance=0) > 1


def test_the_width_does_not_depend_on_the_batch(tmp_path):
    path = tmp_path / "qrels"
    path.write_text("1 0 a 1\n1 0 b 1\n2 0 a 1\n")
    judgements = Judgements(path)
    assert judgements.of(["2"]).shape == judgements.of(["nobody"]).shape == (1, 2)
    assert judgements.of(["1"]).dtype == torch.int64


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "'PATH' does not exist. Check --qrels_file."),
        ("1 0 a 1\n1 0 a\n", "'PATH', line 2: the grade 'a' is not a whole number."),
        ("1 0 a b c 1\n", "'PATH', line 1: 6 columns. Judgements have 4"),
        ("1\n", "'PATH', line 1: 1 columns. Judgements have 4"),
        ("1 0 a nan\n", "'PATH', line 1: the grade 'nan' is not a whole number."),
        ("1 0 a 0.5\n", "'PATH', line 1: the grade '0.5' is not a whole number."),
        ("1 0 a 0\n", "'PATH' names no relevant passage."),
    ],
)
def test_judgements_that_cannot_be_read_are_refused_with_the_line(tmp_path, content, complaint):
    path = tmp_path / "qrels"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as caught:
        Judgements(path)
    assert str(caught.value).startswith(f"Judgement file {complaint.replace('PATH', str(path))}")
