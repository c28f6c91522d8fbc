"""Measures, by ranx and by nothing else.

ranx gets arrays of numbers in our own order: it never sorts them again, so that ties stay as
trec_eval has them, and it compiles once for all collections, whatever their ids look like.
"""

import warnings
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncval.core.measures import Measure
from asyncval.core.types import QuerySet

NOBODY = -1.0
"""The number of no passage: it fills the rows of queries with fewer judgements."""
ONE_AT_A_TIME = Lock()
"""numba's own threads end the process where two others compute with them at a time."""


class Scorer:
    """Scores the answers to one query set.

    Args:
        query_set: Queries and judgements.
        passage_ids: [P] ids, in the order in which passages are numbered.
        measures: What to compute.
    """

    def __init__(
        self, query_set: QuerySet, *, passage_ids: Sequence[str], measures: Sequence[Measure]
    ) -> None:
        self._measures = measures
        self.query_ids = query_set.judged
        judged = set(self.query_ids)
        self._rows = np.array([i for i, q in enumerate(query_set.queries) if q.id in judged])
        self._judgements = _as_array(query_set, passage_ids)

    def score(self, positions: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Return each measure's value for every judged query, [judged Q].

        Args:
            positions: [Q, K] passages of every query of the set, best first, without pads.
        """
        run = np.empty((len(self._rows), positions.shape[1], 2), dtype=np.float64)
        run[:, :, 0] = positions[self._rows]
        run[:, :, 1] = -np.arange(positions.shape[1])
        return dict(zip(map(str, self._measures), self._evaluate(run), strict=True))

    def _evaluate(self, run: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        names = [measure.ranx_name for measure in self._measures]
        found = ranx_evaluate(self._judgements, run, names)
        return [np.asarray(found[name], dtype=np.float64) for name in names]


def ranx_evaluate(
    judgements: NDArray[np.float64], run: NDArray[np.float64], names: list[str]
) -> dict[str, Any]:
    """Return ranx's values per query.

    Args:
        judgements: [Q, J, 2] passage number and grade, the highest grade first.
        run: [Q, K, 2] passage number and a score that falls, best first.
        names: Measures as ranx spells them.
    """
    with ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's remarks about ranx's own code
        from ranx import evaluate

        # ranx looks a single measure up without its cutoff, and does not find it.
        wanted = names if len(names) > 1 else names * 2
        found: dict[str, Any] = evaluate(judgements, run, wanted, return_mean=False)
    return found


def warm_up(measures: Sequence[Measure]) -> None:
    """Make ranx compile what `measures` need: seconds, once per machine."""
    tiny = np.array([[[0.0, 1.0]]])
    ranx_evaluate(tiny, tiny, [measure.ranx_name for measure in measures])


def _as_array(query_set: QuerySet, passage_ids: Sequence[str]) -> NDArray[np.float64]:
    """Return [judged Q, J, 2] passage number and grade, the highest grade first.

    A judged passage that is not in the corpus gets a number of its own behind it: it
    counts as relevant, and no search can find it.
    """
    wanted = {p for query_id in query_set.judged for p in query_set.judgements[query_id]}
    numbers = {p: number for number, p in enumerate(passage_ids) if p in wanted}
    for passage_id in sorted(wanted - numbers.keys()):
        numbers[passage_id] = len(passage_ids) + len(numbers)
    most = max((len(query_set.judgements[q]) for q in query_set.judged), default=0)
    array = np.zeros((len(query_set.judged), most, 2), dtype=np.float64)
    array[:, :, 0] = NOBODY
    for row, query_id in enumerate(query_set.judged):
        grades = sorted(query_set.judgements[query_id].items(), key=lambda item: -item[1])
        for column, (passage_id, grade) in enumerate(grades):
            array[row, column] = numbers[passage_id], grade
    return array
