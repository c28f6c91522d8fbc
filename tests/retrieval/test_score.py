import re
import subprocess
import sys

import numpy as np
import pytest
import pytrec_eval

from asyncval.core.measures import parse_measures
from asyncval.core.ranking import in_trec_order
from asyncval.retrieval.score import Scorer
from tests.retrieval.stores import make_query_set

MEASURES = [
    "RR",
    "RR@10",
    "RR@1",
    "RR(rel=2)@10",
    "RR(rel=3)",
    "nDCG",
    "nDCG@10",
    "nDCG@3",
    "nDCG@1000",
    "AP",
    "AP@10",
    "AP(rel=2)",
    "AP(rel=2)@100",
    "P@1",
    "P@5",
    "P@100",
    "P(rel=2)@5",
    "R@5",
    "R@100",
    "R(rel=2)@100",
    "Success@1",
    "Success@5",
    "Success(rel=2)@5",
    "Rprec",
    "Rprec(rel=2)",
]
TREC_NAMES = {
    "RR": "recip_rank",
    "nDCG": "ndcg",
    "AP": "map",
    "P": "P",
    "R": "recall",
    "Success": "success",
    "Rprec": "Rprec",
}


def pytrec_evals_value(measure, judgements, run, order):
    """Return trec_eval's value of one measure for every judged query."""
    match = re.fullmatch(r"(\w+)(?:\(rel=(\d)\))?(?:@(\d+))?", measure)
    assert match is not None
    name, level, cutoff = match.groups()
    trec_name = TREC_NAMES[name]
    if name == "RR" and cutoff:  # trec_eval has no cutoff for it: cut the run in its own order
        run = {q: {p: run[q][p] for p in order[q][: int(cutoff)]} for q in run}
    elif cutoff:
        trec_name = {"ndcg": "ndcg_cut", "map": "map_cut"}.get(trec_name, trec_name)
        trec_name = f"{trec_name}.{cutoff}"
    evaluator = pytrec_eval.RelevanceEvaluator(
        judgements, {trec_name}, relevance_level=int(level or 1)
    )
    found = evaluator.evaluate(run)
    return {q: values[trec_name.replace(".", "_")] for q, values in found.items()}


def make_case(seed):
    """Return a query set, passage ids, scores [Q, P] with many ties, and a depth."""
    draw = np.random.default_rng(seed)
    num_passages = int(draw.choice([3, 12, 60, 150]))
    passage_ids = draw.permutation([*map(str, range(100)), *(f"D{i}" for i in range(100))])
    passage_ids = passage_ids[:num_passages].tolist()
    outside = [f"outside{number}" for number in range(5)]
    query_ids = [f"q{number}" for number in range(20)]
    judgements = {}
    for query_id in query_ids[2:]:  # the first two are not judged
        judged = draw.choice([*passage_ids, *outside], size=int(draw.integers(1, 9)))
        grades = draw.choice([-2, -1, 0, 1, 2, 3], size=len(judged))
        judgements[query_id] = dict(zip(judged.tolist(), grades.tolist(), strict=True))
        judgements[query_id][outside[4]] = 0  # pytrec_eval may crash where all are negative
    judgements["q2"] = {passage_ids[0]: 0, passage_ids[1]: -1}  # nothing is relevant
    judgements["q3"] = {outside[0]: 1}  # what is relevant cannot be found
    judgements["q4"] = dict.fromkeys(passage_ids[:100], 1)  # more than the depth
    judgements["not a query of the file"] = {passage_ids[0]: 1}
    levels = draw.normal(size=int(draw.choice([1, 4, 1000])))
    scores = draw.choice(levels, size=(len(query_ids), num_passages)).astype(np.float32)
    depth = int(draw.choice([10, 100]))
    return make_query_set(judgements, query_ids), passage_ids, scores, depth


@pytest.mark.parametrize("seed", range(12))
def test_every_measure_equals_trec_evals_for_every_query(seed):
    query_set, passage_ids, scores, depth = make_case(seed)
    everything = np.broadcast_to(np.arange(len(passage_ids)), scores.shape)
    scores, positions = in_trec_order(scores, everything, passage_ids=passage_ids, depth=depth)
    order = {
        query.id: [passage_ids[place] for place in row]
        for query, row in zip(query_set.queries, positions, strict=True)
    }
    run = {
        query_id: dict(zip(ids, row, strict=True))
        for (query_id, ids), row in zip(order.items(), scores.tolist(), strict=True)
    }

    scorer = Scorer(query_set, passage_ids=passage_ids, measures=parse_measures(MEASURES))
    found = scorer.score(positions)

    assert list(found) == MEASURES
    assert scorer.query_ids == query_set.judged == tuple(f"q{i}" for i in range(2, 20))
    judgements = {query_id: query_set.judgements[query_id] for query_id in query_set.judged}
    for measure in MEASURES:
        reference = pytrec_evals_value(measure, judgements, run, order)
        expected = [reference[query_id] for query_id in query_set.judged]
        np.testing.assert_allclose(found[measure], expected, atol=1e-6, err_msg=measure)


def test_a_tie_counts_in_the_order_that_trec_eval_gives_it():
    query_set = make_query_set({"q": {"10": 1}}, ["q"])
    passage_ids = ["10", "9", "8"]
    _, positions = in_trec_order(
        np.ones((1, 3), dtype=np.float32),
        np.arange(3)[None],
        passage_ids=passage_ids,
        depth=3,
    )
    scorer = Scorer(query_set, passage_ids=passage_ids, measures=parse_measures(["RR"]))
    assert scorer.score(positions)["RR"].tolist() == pytest.approx([1 / 3])


def test_the_values_are_in_the_order_of_the_judged_queries_of_the_file():
    query_set = make_query_set({"b": {"y": 1}, "a": {"x": 1}}, ["c", "a", "b"])
    scorer = Scorer(query_set, passage_ids=["x", "y"], measures=parse_measures(["RR"]))
    assert scorer.query_ids == ("a", "b")
    positions = np.array([[0, 1], [1, 0], [1, 0]])
    assert scorer.score(positions)["RR"].tolist() == [0.5, 1.0]


def test_one_scorer_scores_one_checkpoint_after_another():
    query_set = make_query_set({"a": {"x": 1}}, ["a"])
    scorer = Scorer(query_set, passage_ids=["x", "y"], measures=parse_measures(["RR", "P@1"]))
    for positions, value in (([[0, 1]], 1.0), ([[1, 0]], 0.5), ([[0, 1]], 1.0)):
        assert scorer.score(np.array(positions))["RR"].tolist() == [value]


def test_a_query_with_nothing_but_negative_judgements_scores_nothing():
    query_set = make_query_set({"a": {"x": -1}}, ["a"])
    scorer = Scorer(query_set, passage_ids=["x", "y"], measures=parse_measures(MEASURES))
    assert {values.tolist()[0] for values in scorer.score(np.array([[0, 1]])).values()} == {0.0}


@pytest.mark.parametrize("measure", ["RR@10", "RR", "nDCG@3", "R(rel=2)@5"])
def test_a_measure_alone_has_the_value_that_it_has_among_others(measure):
    query_set = make_query_set({"q": {"d2": 1, "d4": 2}}, ["q"])
    positions = np.array([[0, 2, 1, 4, 3]])
    values = []
    for measures in ([measure], [measure, "AP"]):
        ids = [f"d{number}" for number in range(5)]
        scorer = Scorer(query_set, passage_ids=ids, measures=parse_measures(measures))
        values.append(scorer.score(positions)[measure])
    assert values[0] == values[1]
    assert 0 < values[0] <= 1


WARM_UPS = """
from threading import Thread
from asyncval.core.measures import parse_measures
from asyncval.retrieval.score import warm_up

def work():
    for _ in range(40):
        warm_up(measures)

measures = parse_measures(["RR@10", "nDCG@10"])
warm_up(measures)
threads = [Thread(target=work) for _ in range(2)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


def test_scoring_while_another_thread_warms_up_does_not_end_the_process():
    done = subprocess.run(
        [sys.executable, "-c", WARM_UPS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
