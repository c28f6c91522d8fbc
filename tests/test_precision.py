import pytest
import torch

from asyncval import evaluation
from asyncval.commands.preparation import asked_dtype
from asyncval.config import EncodingConfig
from asyncval.core.errors import InvalidOption
from asyncval.evaluation import resolve_precision
from asyncval.execution.local import refuse_several_precisions


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "fp32"),
        ({"fp16": True}, "fp16"),
        ({"bf16": True}, "bf16"),
        ({"dtype": "auto"}, "auto"),
        ({"dtype": "fp32"}, "fp32"),
        ({"dtype": "bf16", "bf16": True}, "bf16"),
    ],
)
def test_a_precision_may_be_spelled_in_two_ways(said, expected):
    assert asked_dtype(EncodingConfig(**said)) == expected


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"fp16": True, "bf16": True}, "--fp16 and --bf16"),
        ({"dtype": "fp32", "bf16": True}, "--dtype and --bf16"),
        ({"dtype": "auto", "fp16": True}, "--dtype and --fp16"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(said, named):
    with pytest.raises(InvalidOption, match=f"{named} exclude each other"):
        asked_dtype(EncodingConfig(**said))


@pytest.mark.parametrize(
    ("flags", "dtype", "expected"),
    [
        ("sse2 avx512f amx_tile amx_bf16", "auto", "bf16"),
        ("sse2 avx512f avx512_bf16", "auto", "bf16"),
        ("sse2 avx512f", "auto", "fp32"),
        ("sse2 avx512f", "fp32", "fp32"),
        ("avx512_bf16", "fp32", "fp32"),
        ("avx512_bf16", "bf16", "bf16"),
    ],
)
def test_on_a_cpu_bf16_is_taken_where_the_cpu_computes_in_it(monkeypatch, flags, dtype, expected):
    monkeypatch.setattr(evaluation, "_cpu_flags", flags.split)
    assert resolve_precision("cpu", dtype) == (expected, "")


@pytest.mark.parametrize(("flags", "dtype"), [("avx512f", "bf16"), ("avx512_bf16", "fp16")])
def test_a_precision_that_a_cpu_has_not_becomes_fp32_and_is_said(monkeypatch, flags, dtype):
    monkeypatch.setattr(evaluation, "_cpu_flags", flags.split)
    precision, note = resolve_precision("cpu", dtype)
    assert precision == "fp32"
    assert f"no good {dtype}" in note


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_on_a_gpu_auto_is_the_half_precision_that_it_has(monkeypatch, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert resolve_precision("cuda:0", "auto") == (expected, "")
    assert resolve_precision("cuda:0", "fp32") == ("fp32", "")
    assert resolve_precision("cuda:0", "fp16") == ("fp16", "")


def test_devices_that_would_not_encode_alike_are_refused():
    refuse_several_precisions({"cpu": {"precision": "fp32"}, "cuda:0": {"precision": "fp32"}})
    with pytest.raises(InvalidOption, match="cpu in fp32, cuda:0 in bf16"):
        refuse_several_precisions({"cpu": {"precision": "fp32"}, "cuda:0": {"precision": "bf16"}})
