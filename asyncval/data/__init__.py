"""Queries, passages, judgements and rankings, as files have them.

This is the one place where a data format is added.
"""

TEXT_FORMATS = {
    "jsonl": "asyncval.data.jsonl:JsonLines",
    "tsv": "asyncval.data.tsv:TabSeparated",
    "parquet": "asyncval.data.parquet:Parquet",
    "datasets": "asyncval.data.saved_datasets:SavedDataset",
    "ir_datasets": "asyncval.data.ir_datasets:IrDataset",
}
"""Formats of queries and passages; the first that `recognises` what a user gives reads it."""
TEXT_FORMAT_GROUP = "asyncval.text_formats"
"""Entry points of installed packages, which are asked after this table."""
