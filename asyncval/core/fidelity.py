"""How far the scores on a subset may be trusted for choosing among checkpoints. Pure.

Axes: C checkpoints, ascending by step, Q queries, R resamples. Statistics are scipy's.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_CHECKPOINTS = 3
CONFIDENCE = 0.95
DECIMALS = 12
"""Means that differ by less are equal: they differ by the order in which they were added."""
RESAMPLES_AT_ONCE = 100
MIN_SHARE_DEFINED = 0.5

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value and its 95% interval; None where it is not defined, as the order of equals."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """What a subset's scores by one measure say of the full corpus'.

    Attributes:
        tau: Kendall's tau-b between the two orders of the checkpoints.
        spearman: Their rank correlation.
        same_best: Whether both choose the same checkpoint, the earliest among equals.
        same_best_share: In how many of the resamples they do.
        regret: How much lower the checkpoint that the subset chooses scores on the full
            corpus than the best one does.
        inflation: How much higher the subset's scores are, on the mean.
        slope: By how much the subset's score rises where the full corpus' rises by 1.
    """

    tau: Estimate
    spearman: Estimate
    same_best: bool
    same_best_share: float
    regret: Estimate
    inflation: Estimate
    slope: Estimate


STATISTICS = ("tau", "spearman", "regret", "inflation", "slope", "same_best")


def fidelity(subset: Scores, full: Scores, *, num_resamples: int, seed: int) -> Fidelity:
    """Compare the scores of the same checkpoints for the same queries, both [C, Q].

    The intervals are from a bootstrap over queries: each resample takes the same queries
    from both, and for all checkpoints.

    Raises:
        ValueError: The shapes differ, or there are fewer than 3 checkpoints or no query.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap  # type: ignore[import-untyped]

    if subset.shape != full.shape or subset.shape[0] < MIN_CHECKPOINTS or not subset.shape[1]:
        raise ValueError(f"Scores of the shapes {subset.shape} and {full.shape}.")
    num_queries = subset.shape[1]
    observed = _statistics(subset.mean(axis=1), full.mean(axis=1))

    def resampled(rows: NDArray[np.int64], axis: int = -1) -> Scores:
        """Return [statistic, R] for queries [R, Q] that were drawn, [statistic] for one draw."""
        weights = _weights(np.atleast_2d(rows), num_queries)
        pairs = zip(weights @ subset.T, weights @ full.T, strict=True)
        found = np.array([_statistics(s, f) for s, f in pairs]).T
        return found if rows.ndim > 1 else found[:, 0]

    if num_queries == 1:  # nothing to draw from
        drawn = np.repeat(observed[:, None], 2, axis=1)
    else:
        with warnings.catch_warnings():
            # Some draws leave an order undefined; `_estimate` sees to them.
            warnings.simplefilter("ignore", DegenerateDataWarning)
            drawn = bootstrap(
                (np.arange(num_queries),),
                resampled,
                n_resamples=num_resamples,
                batch=RESAMPLES_AT_ONCE,
                vectorized=True,
                method="percentile",
                rng=np.random.default_rng(seed),
            ).bootstrap_distribution
    estimates = dict(zip(STATISTICS, map(_estimate, observed, drawn), strict=True))
    del estimates["same_best"]
    return Fidelity(
        **estimates,
        same_best=bool(observed[-1]),
        same_best_share=float(drawn[-1].mean()),
    )


def agreement(subset: Scores, full: Scores) -> float | None:
    """Return Kendall's tau-b between two scores of the same checkpoints, both [C].

    None where it is not defined: fewer than 3 checkpoints, or all scores are equal.
    """
    if len(subset) < MIN_CHECKPOINTS:
        return None
    tau = float(_statistics(subset, full)[0])
    return None if np.isnan(tau) else tau


def _weights(rows: NDArray[np.int64], num_queries: int) -> Scores:
    """Return [R, Q]: the share that each query has of each resample."""
    counts = np.array([np.bincount(row, minlength=num_queries) for row in rows])
    return np.asarray(counts / rows.shape[1])


def _statistics(subset: Scores, full: Scores) -> Scores:
    """Return the values of STATISTICS for the mean scores of C checkpoints, NaN if undefined."""
    from scipy.stats import kendalltau, linregress, spearmanr

    subset, full = np.round(subset, DECIMALS), np.round(full, DECIMALS)
    chosen, best = int(subset.argmax()), int(full.argmax())
    differs = np.ptp(subset) > 0 and np.ptp(full) > 0
    return np.array(
        [
            kendalltau(subset, full, method="asymptotic").statistic if differs else np.nan,
            spearmanr(subset, full).statistic if differs else np.nan,
            full[best] - full[chosen],
            (subset - full).mean(),
            linregress(full, subset).slope if np.ptp(full) > 0 else np.nan,
            chosen == best,
        ]
    )


def _estimate(value: float, drawn: Scores) -> Estimate:
    if np.isnan(value):
        return Estimate(value=None, low=None, high=None)
    if np.isnan(drawn).mean() > MIN_SHARE_DEFINED:
        return Estimate(value=float(value), low=None, high=None)
    low, high = np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value=float(value), low=float(low), high=float(high))


def cost_ratio(
    subset: Mapping[str, float], full: Mapping[str, float], *, num_resamples: int, seed: int
) -> Estimate:
    """Return how many times longer the full corpus takes, by the medians over checkpoints.

    The time does not depend on which queries are drawn, so here checkpoints are resampled.

    Args:
        subset: Seconds by checkpoint.
        full: The same for the full corpus.
        num_resamples: How many samples of the checkpoints the interval comes from.
        seed: Decides which those are.
    """
    from scipy.stats import bootstrap

    seconds = np.array([[subset[name], full[name]] for name in subset])
    if not (np.median(seconds[:, 0]) > 0):
        return Estimate(value=None, low=None, high=None)

    def ratio(rows: NDArray[np.int64], axis: int = -1) -> Scores:
        times = np.median(seconds[rows], axis=rows.ndim - 1)
        return np.asarray(times[..., 1] / times[..., 0])

    interval = bootstrap(
        (np.arange(len(seconds)),),
        ratio,
        n_resamples=num_resamples,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    value = ratio(np.arange(len(seconds)))
    return Estimate(value=float(value), low=float(interval.low), high=float(interval.high))
