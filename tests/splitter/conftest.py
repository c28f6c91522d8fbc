import json
from pathlib import Path
from typing import Any

import pytest

from asyncval.subsets.splitting import Choice, split


class Files:
    """A corpus of numbered passages, a run of two queries over it, and judgements."""

    def __init__(self, folder):
        self.folder = folder
        self.corpus = folder / "corpus.jsonl"
        self.run = folder / "run.trec"
        self.qrels = folder / "qrels.txt"
        self.ids = [f"p{number}" for number in range(50)]
        self.corpus.write_text(
            "".join(
                json.dumps({"_id": each, "text": f"text of {each}"}) + "\n" for each in self.ids
            )
        )
        lines = [f"q{q} Q0 p{q + 2 * i} {i + 1} {20 - i} t\n" for q in (1, 2) for i in range(10)]
        self.run.write_text("".join(lines))
        self.qrels.write_text("q1 0 p40 1\nq2 0 p41 0\nq2 0 p42 2\n")

    def split(self, name="subset", **options):
        choice: dict[str, Any] = {
            "qrel_files": [self.qrels],
            "run_files": [self.run],
            "depths": [3],
        }
        fields = set(Choice.__dataclass_fields__)
        choice |= {key: value for key, value in options.items() if key in fields}
        others = {key: value for key, value in options.items() if key not in fields}
        values = {"candidates": [self.corpus], "output_dir": self.folder / name}
        return split(choice=Choice(**choice), **(values | others))

    def kept(self, name="subset"):
        paths = sorted((self.folder / name).glob("split*"))
        return [json.loads(line)["_id"] for path in paths for line in path.read_text().splitlines()]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)
