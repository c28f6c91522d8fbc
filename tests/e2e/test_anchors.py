"""Every N-th checkpoint is validated on the full corpus too, and the agreement is shown."""

import json

import pytest

from tests.e2e.conftest import asyncval
from tests.e2e.test_watch import events


def test_every_second_checkpoint_is_an_anchor_and_the_agreement_is_shown(
    watch, save_checkpoint, collection, tmp_path
):
    full = tmp_path / "full.jsonl"
    lines = (collection.corpus / "split00.jsonl").read_text().splitlines()
    more = [json.dumps({"text_id": f"x{i}", "text": f"storm {i} river stone"}) for i in range(60)]
    full.write_text("\n".join([*lines, *more]))
    for step in (1, 2, 3, 4, 5, 6):
        save_checkpoint(step)
    anchors = ("--anchor_every", "2", "--anchor_candidate_dir", str(full))
    daemon = watch("--idle_timeout", "1", *anchors)
    assert daemon.exit_code() == 0, daemon.log

    output = tmp_path / "validation"
    subset, anchored = (
        json.loads(asyncval("results", "--json", "--output_dir", str(folder)).stdout)
        for folder in (output, output / "anchor")
    )
    assert [row["step"] for row in subset] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in anchored] == [2, 4, 6]
    assert daemon.log.index("checkpoint-6: RR@10") < daemon.log.index("checkpoint-2 (anchor):")
    points = events(output / "tensorboard" / "asyncval-anchor")
    assert [step for step, _ in points["eval/RR@10"]] == [2, 4, 6]
    for step, tau in points["fidelity/tau"]:
        assert step == 6  # an order needs three
        assert -1 <= tau <= 1

    done = asyncval(
        "fidelity", "--output_dir", str(output), "--against", str(output / "anchor"), "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    taus = dict(points["fidelity/tau/nDCG@10"]) if "fidelity/tau/nDCG@10" in points else {}
    for tau in taus.values():
        assert tau == pytest.approx(report["measures"]["nDCG@10"]["tau"]["value"])


def test_anchors_need_their_corpus(watch):
    daemon = watch("--anchor_every", "2")
    assert daemon.exit_code() == 2
    assert "--anchor_every needs --anchor_candidate_dir" in daemon.log
