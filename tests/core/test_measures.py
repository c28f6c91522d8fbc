import pytest

from asyncval.core.errors import InvalidOption
from asyncval.core.measures import Measure, check_depth, parse_measures


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nDCG@10", "nDCG@10"),
        ("ndcg@10", "nDCG@10"),
        ("NDCG", "nDCG"),
        ("ndcg_cut@10", "nDCG@10"),
        ("MRR@10", "RR@10"),
        ("mrr", "RR"),
        ("recip_rank", "RR"),
        ("RR(rel=2)@10", "RR(rel=2)@10"),
        ("rr(rel=1)@10", "RR@10"),
        ("map", "AP"),
        ("MAP@100", "AP@100"),
        ("AP(rel=3)", "AP(rel=3)"),
        ("precision@5", "P@5"),
        ("p@5", "P@5"),
        ("Recall@100", "R@100"),
        ("r(rel=2)@100", "R(rel=2)@100"),
        ("hit@5", "Success@5"),
        ("hits@5", "Success@5"),
        ("hit_rate@5", "Success@5"),
        ("success@5", "Success@5"),
        ("rprec", "Rprec"),
        (" RR@10 ", "RR@10"),
    ],
)
def test_every_spelling_of_a_measure_has_one_canonical_text(text, canonical):
    [measure] = parse_measures([text])
    assert str(measure) == canonical
    assert parse_measures([str(measure)]) == (measure,)


def test_measures_keep_their_order_and_are_taken_once_under_whatever_name():
    measures = parse_measures(["R@100", "MRR@10", "ndcg@10", "RR@10", "recall@100"])
    assert [str(measure) for measure in measures] == ["R@100", "RR@10", "nDCG@10"]


def test_all_unknown_measures_are_named_at_once():
    unknown = ["foo", "P", "R", "Success", "Rprec@5", "nDCG(rel=2)@10", "RR@0", "RR@-1", "RR@", ""]
    with pytest.raises(InvalidOption) as caught:
        parse_measures(["RR@10", *unknown, "AP"])
    named = str(caught.value).partition("not known: ")[2].partition(". There are")[0]
    assert named == ", ".join(map(repr, unknown))


def test_no_measure_at_all_is_refused():
    with pytest.raises(InvalidOption, match="at least one"):
        parse_measures([])


def test_a_depth_below_a_cutoff_is_refused_with_the_measures_and_the_least_depth():
    measures = parse_measures(["nDCG@10", "R@100", "AP@60", "RR"])
    with pytest.raises(InvalidOption, match=r"--depth 50 .*R@100, AP@60: give --depth 100"):
        check_depth(measures, 50)


def test_a_depth_of_exactly_the_cutoff_is_enough():
    check_depth(parse_measures(["R@100", "AP"]), 100)


def test_the_name_in_ranx_has_cutoff_and_level():
    assert Measure("RR", 10, 2).ranx_name == "mrr@10-l2"
    assert Measure("nDCG").ranx_name == "ndcg"
