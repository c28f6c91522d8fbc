"""The picture of `asyncval fidelity`; matplotlib is met here and nowhere else."""

from pathlib import Path

from asyncval.core.errors import DependencyMissing, OutputUnavailable
from asyncval.subsets.fidelity import Comparison

INCHES = (4.2, 3.4)
MARKER_SIZE = 4


def draw(comparison: Comparison, path: Path) -> None:
    """Draw, for each measure, both curves over the steps and one score against the other.

    Raises:
        DependencyMissing: matplotlib is not installed.
        OutputUnavailable: The file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyMissing(
            "--plot: matplotlib is not installed: run `pip install asyncval[plot]`."
        ) from error
    num_rows = len(comparison.scores)
    figure = Figure(figsize=(2 * INCHES[0], num_rows * INCHES[1]), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(num_rows, 2, squeeze=False)
    # Steps may be unknown or stand twice: then the order is the axis.
    steps = [step for step, _ in comparison.checkpoints if step is not None]
    if len(set(steps)) < len(comparison.checkpoints):
        steps = list(range(1, len(comparison.checkpoints) + 1))
    for (measure, (subset, full)), (curves, scatter) in zip(
        comparison.scores.items(), panels, strict=True
    ):
        curves.plot(steps, full, "o-", markersize=MARKER_SIZE, label="full corpus")
        curves.plot(steps, subset, "s--", markersize=MARKER_SIZE, label="subset")
        curves.set(xlabel="step", ylabel=measure)
        curves.legend(frameon=False)
        scatter.plot(full, subset, "o", markersize=MARKER_SIZE)
        lowest, highest = min(*full, *subset), max(*full, *subset)
        scatter.plot([lowest, highest], [lowest, highest], ":", color="gray", linewidth=1)
        tau = comparison.fidelity[measure].tau.value
        title = "" if tau is None else f"tau-b {tau:.2f}"
        scatter.set(xlabel=f"{measure}, full corpus", ylabel=f"{measure}, subset", title=title)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise OutputUnavailable(f"--plot: {str(path)!r} cannot be written: {error}.") from error
