"""Which passages a corpus subset keeps. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from asyncval.core.types import Judgements, Retrieved


def passages_of_run(lines: Iterable[Retrieved], *, depth: int) -> set[str]:
    """Return the first `depth` passages of every query's ranking.

    Lines with a rank are taken by it. Lines with a score are ordered as trec_eval orders
    them: the score as float32 down, equal scores by id down.
    """
    rankings: dict[str, list[Retrieved]] = defaultdict(list)
    kept: set[str] = set()
    for line in lines:
        if line.rank is None:
            rankings[line.query_id].append(line)
        elif line.rank <= depth:
            kept.add(line.passage_id)
    for ranking in rankings.values():
        ranking.sort(key=_trec_order, reverse=True)
        kept.update(line.passage_id for line in ranking[:depth])
    return kept


def _trec_order(line: Retrieved) -> tuple[np.float32, str]:
    return np.float32(line.score or 0.0), line.passage_id


def judged_passages(judgements: Iterable[Judgements]) -> set[str]:
    """Return every passage that is judged, whatever its grade."""
    return {passage for each in judgements for grades in each.values() for passage in grades}


def share_out(total: int, parts: int) -> Sequence[int]:
    """Return how many of `total` each part gets, the first ones one more where it is uneven."""
    return [total // parts + (number < total % parts) for number in range(parts)]
