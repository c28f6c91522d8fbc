import numpy as np
import pytest
import pytrec_eval

from asyncval.core.ranking import PAD, in_trec_order


def ordered(scores, positions, passage_ids, depth=10):
    scores, positions = in_trec_order(
        np.array(scores, dtype=np.float32),
        np.array(positions, dtype=np.int64),
        passage_ids=passage_ids,
        depth=depth,
    )
    ids = [[passage_ids[place] for place in row] for row in positions]
    return scores.tolist(), ids


def test_the_best_score_comes_first_whatever_order_the_search_had():
    scores, ids = ordered([[1, 3, 2], [-1, -3, -2]], [[0, 1, 2], [0, 1, 2]], ["a", "b", "c"])
    assert scores == [[3, 2, 1], [-1, -2, -3]]
    assert ids == [["b", "c", "a"], ["a", "c", "b"]]


def test_equal_scores_follow_the_id_as_a_string_downwards_so_9_comes_before_10():
    _, ids = ordered([[5, 5, 5, 5]], [[0, 1, 2, 3]], ["10", "9", "100", "1"])
    assert ids == [["9", "100", "10", "1"]]


def test_ties_are_resolved_by_id_and_not_by_position():
    _, ids = ordered([[5, 5], [5, 5]], [[0, 1], [1, 0]], ["z", "a"])
    assert ids == [["z", "a"], ["z", "a"]]


def test_scores_that_differ_less_than_a_float32_can_show_are_equal():
    _, ids = ordered([[1.0 + 1e-9, 1.0]], [[0, 1]], ["a", "b"])
    assert ids == [["b", "a"]]


def test_minus_zero_equals_zero():
    _, ids = ordered([[0.0, -0.0]], [[0, 1]], ["a", "b"])
    assert ids == [["b", "a"]]


def test_spare_answers_are_cut_after_the_ties_are_resolved():
    scores, ids = ordered([[2, 1, 1, 1]], [[0, 1, 2, 3]], ["x", "a", "c", "b"], depth=2)
    assert scores == [[2, 1]]
    assert ids == [["x", "c"]]


def test_padding_is_dropped_when_the_corpus_holds_fewer_than_k_passages():
    lowest = np.finfo(np.float32).min
    scores, ids = ordered(
        [[lowest, 1, -2, lowest], [3, lowest, lowest, -np.inf]],
        [[PAD, 1, 0, PAD], [0, PAD, PAD, 1]],
        ["a", "b"],
    )
    assert scores == [[1, -2], [3, -np.inf]]
    assert ids == [["b", "a"], ["a", "b"]]


def test_an_answer_of_nothing_but_padding_is_empty():
    scores, ids = ordered([[0, 0]], [[PAD, PAD]], ["a"])
    assert scores == [[]]
    assert ids == [[]]


def test_a_shape_disagreement_is_refused_with_both_shapes_in_the_message():
    with pytest.raises(ValueError, match=r"\(1, 2\) and positions \(1, 1\)"):
        ordered([[1, 2]], [[0]], ["a", "b"])


def trec_evals_order(run):
    """Return the ids of a run in pytrec_eval's order: each one's rank, asked for one by one."""
    qrels = {passage_id: {passage_id: 1} for passage_id in run}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"})
    found = evaluator.evaluate(dict.fromkeys(run, run))
    return sorted(run, key=lambda passage_id: -found[passage_id]["recip_rank"])


@pytest.mark.parametrize("seed", range(30))
def test_the_order_is_that_of_pytrec_eval(seed):
    draw = np.random.default_rng(seed)
    pool = [*map(str, range(120)), *"aZ~é_日😀", "\uffee", "doc-1", "doc-10", "doc-2", "0007"]
    ids = draw.permutation(pool)[: draw.integers(2, 60)].tolist()
    levels = draw.normal(size=draw.integers(1, 12)) * 10.0 ** draw.integers(-6, 6)
    scores = draw.choice(levels, size=len(ids))
    scores *= 1 + draw.choice([0, 1e-9, -1e-9, 3e-8, 1e-6], size=len(ids))

    _, ours = ordered([scores], [range(len(ids))], ids, depth=len(ids))

    assert ours == [trec_evals_order(dict(zip(ids, scores.tolist(), strict=True)))]
