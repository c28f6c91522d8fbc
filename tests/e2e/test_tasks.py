"""Several query sets with corpora of their own, watched from a configuration file."""

import json
from pathlib import Path

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.e2e.conftest import Collection


def test_tasks_of_a_configuration_file_have_their_own_tags_runs_and_results(
    collection, save_checkpoint, start, results, tmp_path
):
    other = Collection(tmp_path / "other")
    lines = (other.corpus / "split00.jsonl").read_text().splitlines(keepends=True)
    (other.corpus / "split00.jsonl").write_text("".join(lines[:12]))
    tasks = [
        {
            "name": name,
            "query_file": str(each.queries),
            "candidate_dir": str(each.corpus),
            "qrel_file": str(each.qrels),
        }
        for name, each in (("dev", collection), ("small", other))
    ]
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    save_checkpoint(1)
    daemon = start(
        "watch", "--config", str(tmp_path / "tasks.yaml"),
        "--ckpts_dir", str(tmp_path / "training"),
        "--output_dir", str(tmp_path / "validation"),
        "--cache_dir", str(tmp_path / "cache"),
        "--devices", "cpu",
        "--max_num_valid", "1",
    )  # fmt: skip
    assert daemon.exit_code() == 0, daemon.log
    [row] = results()
    tags = ["dev/RR@10", "dev/nDCG@10", "small/RR@10", "small/nDCG@10"]
    assert sorted(row["metrics"]) == tags
    assert row["metrics"]["dev/RR@10"] != row["metrics"]["small/RR@10"]
    output = tmp_path / "validation"
    assert sorted(each.name for each in (output / "runs").iterdir()) == [
        "checkpoint-1.dev.trec",
        "checkpoint-1.small.trec",
    ]
    events = EventAccumulator(str(output / "tensorboard" / "asyncval"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {f"eval/{tag}" for tag in tags} <= scalars
    saved = yaml.safe_load(Path(output, "config.yaml").read_text())
    assert [each["name"] for each in saved["tasks"]] == ["dev", "small"]
    assert json.loads((output / "best.json").read_text())["checkpoint"]
