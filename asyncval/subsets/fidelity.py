"""`asyncval fidelity`: results on a subset against results on the full corpus."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from asyncval.core.errors import InvalidData, InvalidOption, NothingToDo
from asyncval.core.fidelity import (
    MIN_CHECKPOINTS,
    Estimate,
    Fidelity,
    Scores,
    agreement,
    cost_ratio,
    fidelity,
)
from asyncval.core.records import with_result
from asyncval.core.types import Result, Validation
from asyncval.data.files import read_lines

Key = tuple[int | None, str]
"""Step and name: what the same checkpoint has in common in two output folders."""
PerQuery = Mapping[str, Mapping[str, float]]
"""Measure to query id to value."""
MEAN_TOLERANCE = 1e-9
SPECIFIC_TO_A_FOLDER = {"corpus", "measures"}


@dataclass(frozen=True, slots=True)
class Results:
    """An output folder of `asyncval watch`, the rows of its ledger, and what its plan says."""

    folder: Path
    rows: Sequence[Validation]
    plan: Mapping[str, Any] = field(default_factory=dict)

    def done(self) -> dict[Key, tuple[str, Result]]:
        """Return fingerprint and result of every checkpoint that was validated."""
        return {
            (row.checkpoint.step, row.checkpoint.name): (row.checkpoint.fingerprint, row.result)
            for row in with_result(self.rows)
            if row.result is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of it: `scores` has the means on subset and full corpus, [2, C], by measure."""

    checkpoints: tuple[Key, ...]
    num_queries: int
    scores: Mapping[str, Scores]
    fidelity: Mapping[str, Fidelity]
    cost_ratio: Estimate
    texts_ratio: float
    remarks: tuple[str, ...]


def compare_folders(subset: Results, full: Results, *, num_resamples: int, seed: int) -> Comparison:
    """Compare over the checkpoints that both have, which step and name tell.

    Raises:
        InvalidOption: The number of resamples cannot be used.
        InvalidData: Values per query are missing, or not those of the ledger.
        NothingToDo: They have too little in common.
    """
    if num_resamples < 1:
        raise InvalidOption(f"--resamples {num_resamples}: must be 1 or more.")
    known, reference = subset.done(), full.done()
    common = [key for key in known if key in reference and known[key][0] == reference[key][0]]
    remarks = [*_unmatched(subset, full), *_other_plans(subset.plan, full.plan)]
    if len(common) < MIN_CHECKPOINTS:
        raise NothingToDo(
            f"{len(common)} checkpoints have results in both {str(subset.folder)!r} and "
            f"{str(full.folder)!r}: an order needs {MIN_CHECKPOINTS} or more. " + " ".join(remarks)
        )
    sides = [
        {key: _per_query(side.folder, key, done[key][1]) for key in common}
        for side, done in ((subset, known), (full, reference))
    ]
    measures = [
        measure
        for measure in known[common[0]][1].metrics
        if all(measure in side[key] for side in sides for key in common)
    ]
    if not measures:
        raise NothingToDo(
            "The two folders have no measure in common: give both the same --metrics."
        )
    scores: dict[str, Scores] = {}
    found: dict[str, Fidelity] = {}
    num_queries = 0
    for measure in measures:
        values, lost = _aligned(measure, [[side[key] for key in common] for side in sides])
        if lost:
            remarks.append(
                f"{measure}: {lost} queries are not judged in both folders; the other "
                f"{values.shape[-1]} are compared."
            )
        num_queries = max(num_queries, values.shape[-1])
        scores[measure] = values.mean(axis=2)
        found[measure] = fidelity(*values, num_resamples=num_resamples, seed=seed)
    seconds = [
        {str(key): done[key][1].seconds["total"] for key in common} for done in (known, reference)
    ]
    return Comparison(
        checkpoints=tuple(common),
        num_queries=num_queries,
        scores=scores,
        fidelity=found,
        cost_ratio=cost_ratio(*seconds, num_resamples=num_resamples, seed=seed),
        texts_ratio=reference[common[0]][1].num_texts / max(known[common[0]][1].num_texts, 1),
        remarks=tuple(remarks),
    )


def with_agreement(anchors: list[Validation], subset: Sequence[Validation]) -> list[Validation]:
    """Return anchors with the agreement of both orders up to each, as `fidelity/tau`.

    Args:
        anchors: Results on the full corpus, ascending by step.
        subset: Results on the subset, of these checkpoints and others.
    """
    on_subset = {
        row.checkpoint.fingerprint: row.result for row in with_result(subset) if row.result
    }
    known = [row for row in anchors if row.checkpoint.fingerprint in on_subset]
    results = []
    for anchor in anchors:
        until = [
            row for row in known if (row.checkpoint.step or 0) <= (anchor.checkpoint.step or 0)
        ]
        derived: dict[str, float] = {}
        for measure in anchor.result.metrics if anchor.result else ():
            pairs = [
                (on_subset[row.checkpoint.fingerprint].metrics.get(measure), row.result.metrics)
                for row in until
                if row.result is not None
            ]
            scores = np.array([[s, f[measure]] for s, f in pairs if s is not None and measure in f])
            tau = agreement(*scores.T) if len(scores) else None
            if tau is not None:
                derived.setdefault("fidelity/tau", tau)
                derived[f"fidelity/tau/{measure}"] = tau
        results.append(replace(anchor, derived=derived))
    return results


def _unmatched(subset: Results, full: Results) -> Iterator[str]:
    """Yield one sentence for each kind of checkpoint that cannot be compared."""
    known, reference = subset.done(), full.done()
    for here, there, folder in ((known, reference, subset.folder), (reference, known, full.folder)):
        alone = [key for key in here if key not in there]
        if alone:
            yield (
                f"{len(alone)} of {len(here)} checkpoints have results only in {str(folder)!r}, "
                f"for example {alone[0][1]!r}."
            )
    other = [key for key in known if key in reference and known[key][0] != reference[key][0]]
    if other:
        yield (
            f"{len(other)} checkpoints have the same name in both folders and other weights, for "
            f"example {other[0][1]!r}: they are left out."
        )


def _other_plans(subset: Mapping[str, Any], full: Mapping[str, Any]) -> Iterator[str]:
    """Yield what besides the corpus was not the same in both validations."""
    for name in subset.keys() & full.keys() - SPECIFIC_TO_A_FOLDER:
        if subset[name] != full[name]:
            yield (
                f"The two were not validated alike: {name} is {subset[name]} on the subset and "
                f"{full[name]} on the full corpus."
            )


def _per_query(folder: Path, key: Key, result: Result) -> PerQuery:
    """Return a checkpoint's values per query, by measure as the ledger spells it.

    Raises:
        InvalidData: A file is missing or damaged, or it is of another validation.
    """
    sets = dict.fromkeys(name.rpartition("/")[0] for name in result.metrics)
    values: dict[str, Mapping[str, float]] = {}
    for query_set in sets:
        stem = f"{key[1]}.{query_set}" if query_set else key[1]
        path = folder / "per_query" / f"{stem}.tsv"
        for measure, column in _read_table(path).items():
            name = f"{query_set}/{measure}" if query_set else measure
            mean = sum(column.values()) / max(len(column), 1)
            if abs(mean - result.metrics.get(name, np.nan)) > MEAN_TOLERANCE:
                raise InvalidData(
                    f"{str(path)!r}: the mean of {measure} is {mean:.6f}, and not that of the "
                    "ledger: the file is of another validation."
                )
            values[name] = column
    return values


def _read_table(path: Path) -> dict[str, dict[str, float]]:
    if not path.is_file():
        raise InvalidData(
            f"There is no file {str(path)!r}: the values per query are needed for the intervals."
        )
    lines = (line.split("\t") for _, _, line in read_lines(path))
    header = next(lines, [])
    columns: dict[str, dict[str, float]] = {measure: {} for measure in header[1:]}
    try:
        for query_id, *values in lines:
            for column, value in zip(columns.values(), values, strict=True):
                column[query_id] = float(value)
    except ValueError as error:
        raise InvalidData(f"{str(path)!r} is damaged: {error}.") from error
    if not columns or not next(iter(columns.values())):
        raise InvalidData(f"{str(path)!r} has no values in it.")
    return columns


def _aligned(measure: str, sides: Sequence[Sequence[PerQuery]]) -> tuple[Scores, int]:
    """Return [2, C, Q] values for the queries that all have, and how many some do not have."""
    columns = [[values[measure] for values in side] for side in sides]
    ids = [column.keys() for side in columns for column in side]
    common = set(ids[0]).intersection(*ids)
    if not common:
        raise NothingToDo(f"{measure}: no query is judged in both folders.")
    order = [query_id for query_id in ids[0] if query_id in common]
    values = np.array([[[column[q] for q in order] for column in side] for side in columns])
    return values, len(set().union(*ids)) - len(common)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return it as plain values."""
    return {
        "checkpoints": [
            {"step": step, "checkpoint": name} for step, name in comparison.checkpoints
        ],
        "queries": comparison.num_queries,
        "measures": {
            measure: {
                **asdict(found),
                "subset": comparison.scores[measure][0].tolist(),
                "full": comparison.scores[measure][1].tolist(),
            }
            for measure, found in comparison.fidelity.items()
        },
        "cost_ratio": asdict(comparison.cost_ratio),
        "texts_ratio": comparison.texts_ratio,
        "remarks": list(comparison.remarks),
    }


def render_fidelity(comparison: Comparison) -> list[RenderableType]:
    """Return a table, one row a measure, and what the subset saves."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("measure", "tau-b", "Spearman", "same best", "regret", "inflation", "slope"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for measure, found in comparison.fidelity.items():
        table.add_row(
            measure,
            _shown(found.tau),
            _shown(found.spearman),
            f"{'yes' if found.same_best else 'no'} ({found.same_best_share:.0%})",
            _shown(found.regret, digits=4),
            _shown(found.inflation, digits=4),
            _shown(found.slope),
        )
    return [
        table,
        f"{len(comparison.checkpoints)} checkpoints, {comparison.num_queries} queries; in brackets "
        "95% intervals from a bootstrap over queries.",
        f"The full corpus takes {_shown(comparison.cost_ratio, digits=1)} times the seconds and "
        f"{comparison.texts_ratio:.1f} times the texts.",
    ]


def _shown(estimate: Estimate, digits: int = 2) -> str:
    if estimate.value is None:
        return "undefined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
