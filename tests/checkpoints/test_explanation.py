"""`asyncval explain` says what a checkpoint is, and who says each thing, without its weights."""

import json
import tempfile
from pathlib import Path
from shutil import copytree

import pytest

from asyncval.commands.explain import explain
from asyncval.config import ExplainConfig
from asyncval.core.errors import InvalidOption
from asyncval.options import parse
from tests.checkpoints.recipes import disentangled, openmatch, retromae, tevatron, tevatron_v2
from tests.reliability.test_completeness import without_privileges


def report_of(made, capsys, *flags):
    config = parse(ExplainConfig, [str(made.folder), "--json", *flags], command="explain")
    assert explain(config) == 0
    [report] = json.loads(capsys.readouterr().out)
    return report


@pytest.mark.parametrize(
    ("make", "flags", "said"),
    [
        (
            tevatron.tied_pooler,
            (),
            {
                "layout": "tevatron",
                "towers": "the checkpoint itself (one for queries and passages)",
                "pooling": "cls (the layout tevatron)",
                "head": "a linear layer, 16 to 8 (pooler_config.json)",
                "normalize": "yes (pooler_config.json)",
                "similarity": "ip (assumed)",
                "query prefix": "none (assumed)",
            },
        ),
        (
            retromae.untied_mean,
            ("--pooling", "mean"),
            {
                "layout": "retromae",
                "towers": "query_model/, passage_model/ (one for queries, one for passages)",
                "pooling": "mean (--pooling)",
                "head": "none (no pooler.pt)",
                "normalize": "no (assumed)",
            },
        ),
        (
            openmatch.t5_decoder,
            (),
            {
                "layout": "openmatch",
                "pooling": "cls (the decoder of T5Model)",
                "normalize": "no (openmatch_config.json)",
            },
        ),
        (
            disentangled.cosine,
            (),
            {
                "layout": "disentangled-retriever",
                "pooling": "cls (config.json)",
                "similarity": "cos (config.json)",
            },
        ),
        (
            tevatron_v2.lora,
            ("--query_prefix", "query: ", "--append_eos_token"),
            {
                "layout": "peft",
                "pooling": "cls (assumed)",
                "query prefix": "query:  (--query_prefix)",
                "append eos": "yes (--append_eos_token)",
            },
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_thing_is_said_with_where_it_comes_from(make, flags, said, tmp_path, capsys):
    report = report_of(make(tmp_path / "run"), capsys, *flags)
    assert {key: report[key] for key in said} == said


def test_the_tokenizer_and_the_base_are_said_with_their_places(tmp_path, capsys):
    report = report_of(tevatron_v2.lora(tmp_path / "run"), capsys)
    assert report["tokenizer"] == f"{tmp_path / 'run'} (the folder above)"
    assert report["towers"] == f"{tmp_path / 'models' / 'base'} (adapter_config.json)"


def test_weights_are_not_read(tmp_path, capsys, monkeypatch):
    made = tevatron.untied(tmp_path / "run")

    def refuse(*args, **kwargs):
        raise AssertionError("weights were read")

    monkeypatch.setattr("torch.load", refuse)
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", refuse)
    assert report_of(made, capsys)["verdict"] == "complete"


def test_a_contradiction_and_a_missing_base_are_the_verdict(tmp_path, capsys):
    made = openmatch.tied(tmp_path / "run")
    report = report_of(made, capsys, "--pooling", "mean")
    assert report["verdict"] == "refused"
    assert "--pooling says 'mean'" in report["reason"]
    made = tevatron_v2.lora_elsewhere(tmp_path / "other")
    report = report_of(made, capsys)
    assert report["verdict"] == "refused"
    assert "--base_model" in report["reason"]


def test_what_is_missing_leaves_it_incomplete_with_what_is_known(tmp_path, capsys):
    made = openmatch.untied_heads(tmp_path / "run")
    (made.folder / "query_head" / "linear.pt").unlink()
    report = report_of(made, capsys)
    assert (report["layout"], report["verdict"]) == ("openmatch", "incomplete")


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for paths, said in {
        (): "PATH: give a checkpoint",
        (tmp_path / "file",): "file' is a file: give the checkpoint's folder",
        (tmp_path / "gone",): "there is no folder .*gone'",
    }.items():
        with pytest.raises(InvalidOption, match=said):
            explain(ExplainConfig(paths=paths))


def test_a_folder_of_checkpoints_is_said_to_be_one(tmp_path, capsys):
    made = tevatron.untied(tmp_path / "run")
    for name in ("checkpoint-10", "checkpoint-9"):
        copytree(made.folder, tmp_path / "all" / name)
    explain(ExplainConfig(paths=(tmp_path / "all",)))
    out = capsys.readouterr().out
    assert "by their names it holds some" in out
    assert f"for example {str(tmp_path / 'all' / 'checkpoint-9')!r}" in out
    assert "step:" not in out


def test_lines_for_people_have_the_same(tmp_path, capsys):
    made = tevatron.untied(tmp_path / "run")
    explain(parse(ExplainConfig, [str(made.folder)], command="explain"))
    out = capsys.readouterr().out
    assert "layout:" in out
    assert "cls (the layout tevatron)" in out


def test_the_pattern_of_names_tells_the_step(tmp_path, capsys):
    made = tevatron.untied(tmp_path / "run")
    folder = made.folder.rename(tmp_path / "run" / "epoch-2-of-9-at-1500")
    pattern = r"epoch-\d+-of-\d+-at-(\d+)"
    for flags, step in ((), None), (("--ckpt_pattern", pattern), 1500):
        explain(parse(ExplainConfig, [str(folder), "--json", *flags], command="explain"))
        [report] = json.loads(capsys.readouterr().out)
        assert report["step"] == step
        assert ("name" in report) == (step is None)
    explain(
        parse(ExplainConfig, [str(folder.parent), "--ckpt_pattern", pattern], command="explain")
    )
    assert f"for example {str(folder)!r}" in capsys.readouterr().out


def test_weights_that_may_not_be_read_block_it(capsys):
    with tempfile.TemporaryDirectory() as name:
        made = tevatron.untied(Path(name) / "run")
        for each in (Path(name), made.folder.parent, made.folder, *made.folder.rglob("*")):
            each.chmod(0o755)
        weights = next(made.folder.rglob("*.safetensors"))
        weights.chmod(0)
        with without_privileges():
            report = report_of(made, capsys)
    assert report["verdict"] == "blocked"
    assert weights.name in report["reason"]
    assert "as the trainer's user" in report["reason"]
    assert "may be read" in report["next look"]
