"""Tevatron v1.5, v2 and v3: a whole model, or LoRA on a base that lies elsewhere.

Pooling, normalisation, prefixes and the end-of-text token are said by flags.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

from tests.checkpoints.recipes.made import (
    NAME,
    Made,
    bert,
    finish,
    last,
    mean,
    save_tokenizer,
    unit,
    write_json,
)
from tests.models import WORDS

LAST = ("--pooling", "last", "--normalize", "--append_eos_token")
PREFIXES = ("query : ", "passage : ")
RANK, ALPHA = 4, 8


def save_llama_tokenizer(folder: Path) -> Path:
    """Write a tokenizer that puts `<s>` before a text and nothing behind it."""
    pieces = ["<unk>", "<s>", "</s>", ":", "passage", *WORDS]
    tokenizer = Tokenizer(
        models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return folder


def llama(kind: type[LlamaModel] | type[LlamaForCausalLM] = LlamaModel) -> Any:
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=40,
        pad_token_id=None,
        initializer_range=0.3,
    )
    return kind(config).eval()


def full(run: Path) -> Made:
    model = bert(1)
    model.save_pretrained(run / NAME)
    finish(run / NAME, arguments=True)
    vector = unit(mean(model))
    return Made(
        folder=run / NAME,
        layout="huggingface",
        queries=vector,
        passages=vector,
        tokenizer=save_tokenizer(run),
        flags=("--pooling", "mean", "--normalize"),
    )


def full_decoder(run: Path) -> Made:
    model = llama()
    model.save_pretrained(run / NAME)
    finish(run / NAME, arguments=True)
    return decoder_made(run, model, "huggingface")


def decoder_made(run: Path, model: LlamaModel, layout: str, **more: Any) -> Made:
    query, passage = PREFIXES
    vector = unit(last(model))
    return Made(
        folder=run / NAME,
        layout=layout,
        queries=vector,
        passages=vector,
        tokenizer=save_llama_tokenizer(run),
        flags=(*LAST, "--query_prefix", query, "--passage_prefix", passage),
        prefixes=PREFIXES,
        eos=True,
        **more,
    )


def save_lora(folder: Path, model: LlamaModel, *, base: str, form: str) -> None:
    """Write an adapter with a B that is not zero, and merge it into the model by hand."""
    draw = torch.Generator().manual_seed(12)
    tensors: dict[str, Tensor] = {}
    for number, layer in enumerate(model.layers):
        for name in ("q_proj", "v_proj"):
            down = torch.randn(RANK, 16, generator=draw)
            up = torch.randn(16, RANK, generator=draw)
            place = f"base_model.model.layers.{number}.self_attn.{name}"
            tensors |= {f"{place}.lora_A.weight": down, f"{place}.lora_B.weight": up}
            weight = getattr(layer.self_attn, name).weight
            weight.data = weight.data + ALPHA / RANK * (up @ down)
    folder.mkdir(parents=True)
    if form == "bin":  # as with transformers 5
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "FEATURE_EXTRACTION",
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
    }
    write_json(folder / "adapter_config.json", config)
    (folder / "README.md").write_text("An adapter.\n")
    finish(folder, arguments=True)


def lora(run: Path, *, form: str = "safetensors") -> Made:
    """Names its base by a path relative to the folder above the run's."""
    model = llama(LlamaForCausalLM)
    model.save_pretrained(run.parent / "models" / "base")
    save_lora(run / NAME, model.model, base="models/base", form=form)
    return decoder_made(run, model.model, "peft")


def lora_bin(run: Path) -> Made:
    return lora(run, form="bin")


def lora_elsewhere(run: Path) -> Made:
    """Names a base that is not here; the flag does, and the base has the tokenizer."""
    model = llama()
    base = run.parent / "downloads" / "base"
    model.save_pretrained(base)
    save_lora(run / NAME, model, base="meta-llama/Llama-2-7b-hf", form="safetensors")
    made = decoder_made(base, model, "peft")
    flags = (*made.flags, "--base_model", str(base))
    return Made(**{**vars(made), "folder": run / NAME, "flags": flags})


RECIPES = {
    "tevatron v2": full,
    "tevatron v2 decoder": full_decoder,
    "tevatron v2 lora": lora,
    "tevatron v2 lora, bin": lora_bin,
    "repllama": lora_elsewhere,
}
