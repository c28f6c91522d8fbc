"""Tiny random encoders and their tokenizer, as the libraries themselves save them."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ["ocean", "river", "storm", "light", "query", "stone", "green", "music", "train", "cloud"]
HIDDEN = 16


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a lower-casing WordPiece tokenizer that knows all letters and a few words."""
    pieces = [*SPECIAL_TOKENS, ":", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def bert_config(**changes: Any) -> BertConfig:
    values: dict[str, Any] = {
        "vocab_size": len(make_tokenizer()),
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
        "initializer_range": 0.5,
    }
    return BertConfig(**(values | changes))


def save_huggingface(folder: Path, *, seed: int = 1) -> Path:
    """Write what `save_pretrained` of a model and of its tokenizer write."""
    torch.manual_seed(seed)
    BertModel(bert_config()).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def save_distributed(folder: Path, *, place: str = "", wrapper: str = "") -> Path:
    """Write the encoder of `save_huggingface` as torch's distributed checkpoint."""
    import warnings

    from safetensors.torch import load_file
    from torch.distributed.checkpoint.state_dict_saver import save

    save_huggingface(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with warnings.catch_warnings():  # that there is only one process
        warnings.simplefilter("ignore")
        save({wrapper + name: each for name, each in tensors.items()}, checkpoint_id=folder / place)
    return folder


def save_peft(folder: Path, *, base: str, seed: int = 2) -> Any:
    """Write a LoRA adapter of the encoder at `base`; return the model in evaluation mode."""
    import peft
    from transformers import AutoModel

    torch.manual_seed(seed)
    config = peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
    model = peft.get_peft_model(AutoModel.from_pretrained(base), config)
    model.save_pretrained(str(folder))
    return model.eval()


def save_dense(folder: Path, *, seed: int = 5, activation: str = "Tanh") -> dict[str, torch.Tensor]:
    """Write a dense layer as Sentence Transformers does; return its tensors."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    tensors = {"linear.weight": torch.randn(8, HIDDEN), "linear.bias": torch.randn(8)}
    save_file(tensors, folder / "model.safetensors")
    config = {
        "in_features": HIDDEN,
        "out_features": 8,
        "bias": True,
        "activation_function": f"torch.nn.modules.activation.{activation}",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


OLD_MEAN = {
    "word_embedding_dimension": HIDDEN,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}
NEW_MEAN = {"embedding_dimension": HIDDEN, "pooling_mode": "mean", "include_prompt": True}


def save_sentence_transformers(
    folder: Path,
    *,
    kinds: tuple[str, ...] = ("Transformer", "Pooling"),
    transformer: str = "",
    pooling: dict[str, object] | None = None,
    model_config: dict[str, object] | None = None,
    bert_values: dict[str, object] | None = None,
) -> Path:
    """Write a folder of Sentence Transformers with these modules, `Dense` with its weights."""
    save_huggingface(folder / transformer)
    modules = []
    for number, kind in enumerate(kinds):
        path = transformer if kind == "Transformer" else f"{number}_{kind}"
        modules.append(
            {
                "idx": number,
                "name": str(number),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
        )
        if kind == "Pooling":
            (folder / path).mkdir()
            (folder / path / "config.json").write_text(json.dumps(pooling or OLD_MEAN))
        elif kind == "Dense":
            save_dense(folder / path)
    (folder / "modules.json").write_text(json.dumps(modules))
    if bert_values is not None:
        place = folder / transformer / "sentence_bert_config.json"
        place.write_text(json.dumps(bert_values))
    if model_config is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(model_config))
    return folder


def make_sentences(number: int, *, seed: int = 0, longest: int = 12) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(number)]
