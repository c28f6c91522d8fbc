"""The same passages as the first Asyncval's splitter chose, apart from what docs/subsets.md says.

Its rule, written down anew: the first `depth` lines of every query as the run file has them, and
every passage that is judged, whatever its grade.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from asyncval.subsets.splitting import Choice, split

SHARED = Path(__file__).parents[3] / "shared" / "data"
COLLECTIONS = ["scifact", "cranfield", "cisi", "vaswani"]


def chosen_by_the_first(run, qrels, depth):
    kept, query, rank = set(), None, 0
    for line in run.read_text().splitlines():
        query_id, _, passage_id, *_ = line.split()
        if query_id != query:
            query, rank = query_id, 0
        if rank < depth:
            kept.add(passage_id)
        rank += 1
    for line in qrels.read_text().splitlines()[1:]:
        kept.add(line.split("\t")[1])
    return kept


def tied_at_the_cut(run, depth):
    """Passages whose score is that of the last that is kept and of the first that is not."""
    rankings: dict[str, list[tuple[np.float32, str]]] = {}
    for line in run.read_text().splitlines():
        query_id, _, passage_id, _, score, _ = line.split()
        rankings.setdefault(query_id, []).append((np.float32(score), passage_id))
    tied = set()
    for hits in rankings.values():
        if len(hits) > depth and hits[depth - 1][0] == hits[depth][0]:
            tied |= {passage_id for score, passage_id in hits if score == hits[depth][0]}
    return tied


@pytest.mark.parametrize("name", COLLECTIONS)
@pytest.mark.parametrize("depth", [1, 10, 100])
def test_a_subset_of_a_real_collection_has_the_same_passages(tmp_path, name, depth):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    run, qrels = folder / "runs" / "bm25.top100.trec", folder / "qrels" / "test.tsv"
    split(
        candidates=[folder / "corpus.jsonl"],
        choice=Choice(qrel_files=[qrels], run_files=[run], depths=[depth], keep_judged=True),
        output_dir=tmp_path / "subset",
    )
    lines = (tmp_path / "subset" / "split00.jsonl").read_text().splitlines()
    kept = {json.loads(line)["_id"] for line in lines}
    wanted = chosen_by_the_first(run, qrels, depth)
    # It took equal scores in the order of the file, and we by id, as trec_eval does.
    assert kept ^ wanted <= tied_at_the_cut(run, depth)
    with (folder / "corpus.jsonl").open() as corpus:
        assert lines == [line.rstrip("\n") for line in corpus if json.loads(line)["_id"] in kept]
