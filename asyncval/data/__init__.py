"""Queries, passages, judgements and rankings, as files have them.

This is the one place where a data format is added.
"""

TEXT_FORMATS = {
    "jsonl": "asyncval.data.jsonl:JsonLines",
    "tsv": "asyncval.data.tsv:TabSeparated",
}
"""Formats of queries and passages; the first whose `suffixes` has the file's is taken."""
