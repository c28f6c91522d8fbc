"""Checkpoints of a toolkit, through the whole of the daemon."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from tests.checkpoints.recipes import retromae, tevatron_v2
from tests.checkpoints.recipes.made import bert, first
from tests.e2e.conftest import asyncval


def test_two_towers_are_validated_from_where_they_are_kept(watch, collection, results, tmp_path):
    earlier = retromae.untied_mean(tmp_path / "training").folder
    later = shutil.copytree(earlier, earlier.parent / "checkpoint-200")
    torch.save(bert(5).state_dict(), later / "query_model" / "pytorch_model.bin")
    (later / "trainer_state.json").write_text(json.dumps({"global_step": 200}))
    daemon = watch("--max_num_valid", "2", "--write_embeddings", "--pin", "copy")
    assert daemon.exit_code() == 0, daemon.log
    assert [row["status"] for row in results()] == ["done", "done"]
    assert daemon.log.count("--pooling cls is assumed") == 1
    warnings = [row["warnings"] for row in results()]
    assert warnings[0] == warnings[1] != []
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "training")
    texts = [json.loads(line)["text"] for line in collection.queries.read_text().splitlines()]
    for name, seed in (("checkpoint-100", 3), ("checkpoint-200", 5)):
        vector = first(bert(seed))
        wanted = torch.stack([vector(tokenizer(text)["input_ids"]) for text in texts])
        found = np.load(tmp_path / "validation" / "embeddings" / f"{name}.queries.npy")
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_an_adapter_is_evaluated_by_the_flags_of_its_training(collection, tmp_path):
    pytest.importorskip("peft", reason="peft is not installed")
    made = tevatron_v2.lora_elsewhere(tmp_path / "run")
    done = asyncval(
        "eval", str(made.folder), *collection.flags(), *made.flags,
        "--cache_dir", str(tmp_path / "cache"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["metrics"]["RR@10"] > 0
    done = asyncval("explain", str(made.folder), *made.flags)
    assert "last (--pooling)" in done.stdout, done.stdout
