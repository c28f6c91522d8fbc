from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import pytrec_eval

from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.core.errors import CheckpointUnsupported
from asyncval.core.measures import parse_measures
from asyncval.core.types import Checkpoint, EncoderOptions, Text
from asyncval.retrieval import encode as encode_module
from asyncval.retrieval.encode import Encoding
from asyncval.retrieval.task import CorpusTexts, Task
from asyncval.retrieval.tokens import TokenCache
from asyncval.retrieval.validate import Validator
from tests.clocks import FakeClock
from tests.models import make_sentences
from tests.retrieval.stores import make_query_set, make_texts

PASSAGES = make_texts(make_sentences(60))


@pytest.fixture
def reads():
    """How often the corpus was read."""
    return []


@pytest.fixture
def validator(tmp_path, reads):
    """Return a function that makes a validator of these query sets."""

    def make(query_sets, *, depth=20, corpora=None, keep_vectors=True, **said):
        options = EncoderOptions(pooling="mean", **said)

        def read(texts):
            reads.append(1)
            return iter(texts)

        return Validator(
            Task(
                query_sets=query_sets,
                query_digests=[each.name for each in query_sets],
                corpora={
                    name: CorpusTexts(
                        digest=f"{texts[0].id} to {texts[-1].id}", passages=partial(read, texts)
                    )
                    for name, texts in (corpora or {"": PASSAGES}).items()
                },
                measures=parse_measures(["RR@10", "nDCG@10", "R@20"]),
                depth=depth,
                options=options,
                keep_vectors=keep_vectors,
            ),
            load=lambda each: load_checkpoint(each, options, device="cpu", precision="fp32"),
            encoding=Encoding(device="cpu"),
            cache=TokenCache(tmp_path / "cache"),
            clock=FakeClock(),
        )

    return make


def query_set(name="dev", seed=7):
    sentences = make_sentences(8, seed=seed)
    judgements = {f"q{i}": {f"d{i * 3}": 1, f"d{i * 5}": 2} for i in range(6)}
    base = make_query_set(judgements, [], name=name)
    queries = tuple(Text(id=f"q{i}", text=each) for i, each in enumerate(sentences))
    return type(base)(
        name=name,
        path=base.path,
        qrels_path=base.qrels_path,
        queries=queries,
        judgements=judgements,
    )


@pytest.fixture
def checkpoint(bert_folder):
    return Checkpoint(path=bert_folder, step=1, layout="huggingface")


def test_the_numbers_are_what_trec_eval_makes_of_the_ranking(validator, checkpoint):
    outcome = validator([query_set()]).validate(checkpoint)
    [ranking] = outcome.rankings
    run = {
        query.id: {ranking.passage_ids[p]: float(s) for p, s in zip(places, scores, strict=True)}
        for query, places, scores in zip(
            ranking.query_set.queries, ranking.positions, ranking.scores, strict=True
        )
    }
    evaluator = pytrec_eval.RelevanceEvaluator(
        dict(query_set().judgements), {"ndcg_cut.10", "recall.20"}
    )
    values = evaluator.evaluate(run)
    for measure, name in (("nDCG@10", "ndcg_cut_10"), ("R@20", "recall_20")):
        mean = np.mean([values[query_id][name] for query_id in ranking.judged])
        assert outcome.result.metrics[measure] == pytest.approx(mean, abs=1e-6)


def test_the_ranking_is_that_of_all_inner_products(validator, checkpoint):
    outcome = validator([query_set()]).validate(checkpoint)
    [ranking] = outcome.rankings
    products = ranking.query_embeddings @ outcome.corpora[""].embeddings.T
    best = -np.sort(-products, axis=1)[:, :20]
    np.testing.assert_allclose(ranking.scores, best, rtol=1e-5)
    found = np.take_along_axis(products, ranking.positions, 1)
    np.testing.assert_allclose(found, best, rtol=1e-5)


def test_a_depth_beyond_the_corpus_ranks_the_whole_corpus(validator, checkpoint):
    [ranking] = validator([query_set()], depth=1000).validate(checkpoint).rankings
    assert [sorted(row) for row in ranking.positions.tolist()] == [list(range(60))] * 8


def test_a_second_checkpoint_is_not_tokenised_again_and_scores_the_same(
    validator, checkpoint, reads
):
    one = validator([query_set()])
    first, second = one.validate(checkpoint), one.validate(checkpoint)
    assert len(reads) == 1
    assert first.result.metrics == second.result.metrics


def test_several_query_sets_have_their_names_before_their_measures(validator, checkpoint):
    sets = [query_set("dev", seed=7), query_set("test", seed=8)]
    metrics = validator(sets).validate(checkpoint).result.metrics
    assert list(metrics) == [
        f"{name}/{measure}" for name in ("dev", "test") for measure in ("RR@10", "nDCG@10", "R@20")
    ]
    alone = validator([query_set("test", seed=8)]).validate(checkpoint).result.metrics
    assert {f"test/{measure}": value for measure, value in alone.items()} == {
        name: value for name, value in metrics.items() if name.startswith("test/")
    }


def test_each_query_set_is_searched_in_its_own_corpus(validator, checkpoint):
    corpora = {"one": PASSAGES[:25], "two": PASSAGES[25:]}
    sets = [replace(query_set(name), corpus=name) for name in ("one", "two", "one again")]
    sets[2] = replace(sets[2], corpus="one")
    outcome = validator(sets, corpora=corpora).validate(checkpoint)
    for ranking, corpus in zip(outcome.rankings, ("one", "two", "one"), strict=True):
        [alone] = (
            validator([query_set()], corpora={"": corpora[corpus]}).validate(checkpoint).rankings
        )
        assert list(ranking.passage_ids) == [text.id for text in corpora[corpus]]
        np.testing.assert_array_equal(ranking.positions, alone.positions)
        for measure, values in alone.per_query.items():
            np.testing.assert_array_equal(ranking.per_query[measure], values)
    assert outcome.result.num_texts == 60 + 3 * 8


def test_progress_over_several_corpora_and_query_sets_goes_to_the_sum(validator, checkpoint):
    told: dict[str, list[tuple[int, int]]] = {}
    sets = [replace(query_set(name), corpus=name) for name in ("one", "two")]
    validator(sets, corpora={"one": PASSAGES[:25], "two": PASSAGES[25:]}).validate(
        checkpoint,
        listener=lambda each: told.setdefault(each.phase, []).append((each.done, each.total)),
    )
    for phase, total in (("encode queries", 16), ("encode passages", 60)):
        assert told[phase] == sorted(told[phase])
        assert told[phase][-1] == (total, total)


def test_vectors_that_are_dropped_portion_by_portion_give_the_same_ranking(
    validator, checkpoint, monkeypatch
):
    monkeypatch.setattr(encode_module, "CPU_TEXTS", 7)
    kept = validator([query_set()]).validate(checkpoint)
    dropped = validator([query_set()], keep_vectors=False).validate(checkpoint)
    assert dropped.corpora[""].embeddings is None
    assert kept.corpora[""].embeddings.shape == (60, 16)
    np.testing.assert_array_equal(dropped.rankings[0].positions, kept.rankings[0].positions)
    np.testing.assert_array_equal(dropped.rankings[0].scores, kept.rankings[0].scores)
    monkeypatch.undo()
    whole = validator([query_set()]).validate(checkpoint)
    np.testing.assert_array_equal(whole.rankings[0].positions, kept.rankings[0].positions)
    np.testing.assert_allclose(whole.rankings[0].scores, kept.rankings[0].scores, atol=1e-5)


def test_a_length_that_the_model_cannot_take_is_shortened_with_a_warning(validator, checkpoint):
    result = validator([query_set()], p_max_len=64).validate(checkpoint).result
    assert result.warnings == ("--p_max_len 64 became 40: the model takes no more.",)
    result = validator([query_set()], p_max_len=40, q_max_len=50).validate(checkpoint).result
    assert result.warnings == ("--q_max_len 50 became 40: the model takes no more.",)


def test_what_is_measured_counts_all_texts_and_names_every_phase(validator, checkpoint):
    phases = []
    outcome = validator([query_set()], p_max_len=40).validate(
        checkpoint, listener=lambda progress: phases.append(progress.phase)
    )
    assert outcome.result.num_texts == 68
    assert list(dict.fromkeys(phases)) == [*outcome.result.seconds][:-1]
    assert [*outcome.result.seconds][-1] == "total"
    assert outcome.result.warnings == ()


def test_a_checkpoint_without_a_tokenizer_is_refused_with_the_flag_that_helps(
    validator, copy_of_bert
):
    folder = copy_of_bert()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    checkpoint = Checkpoint(path=folder, step=1, layout="huggingface")
    with pytest.raises(CheckpointUnsupported, match="--tokenizer_name_or_path"):
        validator([query_set()]).validate(checkpoint)


def test_a_tokenizer_that_was_asked_for_replaces_the_checkpoints_own(
    validator, copy_of_bert, bert_folder, checkpoint
):
    folder = copy_of_bert()
    (folder / "tokenizer.json").write_text("not a tokenizer")
    other = Checkpoint(path=folder, step=2, layout="huggingface")
    asked = validator([query_set()], tokenizer=str(bert_folder)).validate(other)
    assert asked.result.metrics == validator([query_set()]).validate(checkpoint).result.metrics
