"""Where results are shown.

This is the one place where a reporter is added.
"""

REPORTERS = {
    "best": "asyncval.reporters.best:BestReporter",
    "jsonl": "asyncval.reporters.jsonl:JsonLinesReporter",
    "tensorboard": "asyncval.reporters.tensorboard:TensorBoardReporter",
}
REPORTER_GROUP = "asyncval.reporters"
"""Entry points of installed packages, which add to this table."""
