"""From model files to an encoder: what the layouts share.

Weights are data: safetensors first, `weights_only=True` for the rest, no code from a
checkpoint unless the user said `--trust_remote_code`, and nothing from the network. Tensors
are copied off their files, since a file that is rewritten would change a live model and one
that shrinks would kill the process.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.structure import read_weight_map
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete, CheckpointUnsupported
from asyncval.core.ports import Encoder
from asyncval.core.types import Pooling, Precision
from asyncval.linears import pack_linears

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", *TOKENIZER_FILES[-3:])
DEFAULT_POOLING: Pooling = "cls"
POSITIONS_BEHIND_PADDING = (
    "camembert", "data2vec-text", "longformer", "luke", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip
"""Kinds of models whose first position is the one after the padding token's number."""
UNUSED_WEIGHTS = ("pooler.", "embeddings.position_ids", "cls.", "lm_head.")
"""Parts of a transformer that its last hidden states do not depend on; the pooler comes first."""
AUTO_MODEL = "AutoModel"
ENCODER_HALF = "T5EncoderModel"
NO_VECTOR = {
    "ForSequenceClassification": (
        "scores a query together with a passage (a re-ranker): it has no vectors to search with"
    ),
    "ColBERT": "has a vector for every token (ColBERT), and its scores are no inner products",
    "Splade": "has a weight for every word of the vocabulary (SPLADE), which is searched otherwise",
}
"""Parts of names of model classes that give no vector for a text, and what they do."""


class TransformerEncoder:
    """One tower: a transformer, pooling, further layers, and the similarity's normalisation."""

    def __init__(
        self,
        backbone: "nn.Module",
        *,
        pooling: Pooling,
        head: Sequence[Callable[["Tensor"], "Tensor"]] = (),
    ) -> None:
        self.backbone = backbone
        self.pooling = pooling
        self.head = head

    def encode_queries(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        """Return [B, D] float32 vectors of [B, T] tokens."""
        return self._encode(ids, mask)

    def encode_passages(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        """Return [B, D] float32 vectors of [B, T] tokens."""
        return self._encode(ids, mask)

    def _encode(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        hidden = self.backbone(
            input_ids=ids, attention_mask=needed(mask)
        ).last_hidden_state  # [B, T, H]
        vectors = pool(hidden.float(), mask, self.pooling)
        for layer in self.head:
            vectors = layer(vectors)
        return vectors


class TwoTowers:
    """An encoder of queries and another one of passages."""

    def __init__(self, *, queries: Encoder, passages: Encoder) -> None:
        self.queries = queries
        self.passages = passages

    def encode_queries(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        """Return [B, D] float32 vectors of [B, T] tokens."""
        return self.queries.encode_queries(ids, mask)

    def encode_passages(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        """Return [B, D] float32 vectors of [B, T] tokens."""
        return self.passages.encode_passages(ids, mask)


def needed(mask: "Tensor") -> "Tensor | None":
    """Return what a transformer is to be told of padding: None where there is none for certain."""
    return None if mask.stride() == (0, 0) else mask


def pool(hidden: "Tensor", mask: "Tensor", pooling: Pooling, *, skip: int = 0) -> "Tensor":
    """Return one vector per text, [B, H].

    Args:
        hidden: Hidden states [B, T, H], padded on the right.
        mask: 1 where there is a token, [B, T].
        pooling: How they become one vector.
        skip: How many tokens at the start do not count.
    """
    import torch

    counted = mask if not skip else mask * (torch.arange(mask.shape[1], device=mask.device) >= skip)
    if pooling == "cls":
        rows = torch.arange(len(mask), device=mask.device)
        return hidden[rows, counted.argmax(dim=1)]
    if pooling == "last":
        rows = torch.arange(len(mask), device=mask.device)
        return hidden[rows, (mask.sum(dim=1) - 1).clamp(min=0)]
    if pooling == "max":
        return hidden.masked_fill(counted.unsqueeze(-1) == 0, -torch.inf).amax(dim=1)
    weights = counted.unsqueeze(-1).to(hidden.dtype)
    if pooling == "weightedmean":  # a token counts as often as its place, from 1
        weights = weights * torch.arange(1, mask.shape[1] + 1, device=mask.device).view(1, -1, 1)
    total = weights.sum(dim=1).clamp(min=1e-9)
    return (hidden * weights).sum(dim=1) / (total.sqrt() if pooling == "mean_sqrt_len" else total)


def unit_length(vectors: "Tensor") -> "Tensor":
    """Return the vectors [B, D] at length 1."""
    from torch.nn.functional import normalize

    return normalize(vectors, dim=-1)


def weight_files(folder: Folder, prefix: str = "") -> list[str]:
    """Return the files that hold a transformer's weights, shards included.

    Raises:
        CheckpointIncomplete: There are none.
    """
    found = next((prefix + name for name in WEIGHTS if prefix + name in folder), None)
    if found is None:
        raise CheckpointIncomplete(f"There are no weights yet ({prefix}{WEIGHTS[0]}, or another).")
    if not found.endswith(".index.json"):
        return [found]
    shards = read_weight_map(folder.path / found)
    names = sorted({prefix + shard for shard in set(shards.values())})
    missing = [name for name in names if name not in folder]
    if missing:
        raise CheckpointIncomplete(f"{missing[0]} is missing, which {found} names.")
    return [found, *names]


def tokenizer_files(folder: Folder, prefix: str = "") -> list[str]:
    """Return the tokenizer's files that are there."""
    return [prefix + name for name in TOKENIZER_FILES if prefix + name in folder]


def local_folders(folder: Folder, name: object) -> Iterator[Path]:
    """Yield the folders that a path in a checkpoint's file can mean on this machine.

    A relative one is looked for from the folder that `asyncval` runs in and from those above
    the checkpoint, as the trainer may have run in any.
    """
    if isinstance(name, str) and name:
        for start in (Path(), *(folder.origin or folder.path).parents):
            if (start / name).is_dir():
                yield (start / name).absolute()


def tokenizer_folder(path: Path) -> Path | None:
    """Return `path` if a tokenizer lies in it, else None."""
    return path if any((path / name).is_file() for name in VOCABULARIES) else None


def load_backbone(
    path: Path,
    *,
    device: str,
    precision: Precision,
    trust_remote_code: bool,
    tensors: Mapping[str, "Tensor"] | None = None,
    kind: str = AUTO_MODEL,
    needs_pooler: bool = False,
    is_base: bool = False,
) -> "nn.Module":
    """Load a Hugging Face transformer without its task head, in evaluation mode.

    Args:
        path: The folder with its configuration, and with its weights.
        device: Where it goes.
        precision: Its weights' type there.
        trust_remote_code: Run code that comes with it.
        tensors: Its weights by name, where they do not lie in `path` as transformers expects.
        kind: A class of transformers, where the toolkit says which one it is.
        needs_pooler: Whether the transformer's own pooler matters.
        is_base: Whether it is to be changed by an adapter; `finish` then comes after that.

    Raises:
        CheckpointUnsupported: It is no plain encoder, or needs code of its own.
        CheckpointBroken: Tensors are missing, so some would be random.
    """
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=trust_remote_code
        )
        model_class = _class_for(config, kind)
        config.use_cache = False  # a decoder would keep what only generation needs
        if tensors is not None:
            with torch.device("meta"):
                model_class = type(
                    model_class.from_config(config, trust_remote_code=trust_remote_code)
                )
        model, info = model_class.from_pretrained(
            path if tensors is None else None,
            state_dict=tensors,
            config=config,
            dtype=getattr(
                torch, {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[precision]
            ),
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except (SafetensorError, UnpicklingError) as error:
        raise CheckpointBroken(
            "Its weights cannot be read: they are damaged, or hold more than tensors."
        ) from error
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        raise CheckpointUnsupported(f"transformers cannot load it: {first_line(error)}") from error
    unused = UNUSED_WEIGHTS[1:] if needs_pooler else UNUSED_WEIGHTS
    missing = sorted(
        name
        for name in info["missing_keys"]
        if not _without_prefix(name, unused).startswith(unused)
    )
    if missing or info["mismatched_keys"]:
        names = missing or sorted(str(key) for key in info["mismatched_keys"])
        raise CheckpointBroken(
            f"{len(names)} tensors of the model are not in the checkpoint or have another shape, "
            f"for example {names[0]!r}: they would be random."
        )
    return model if is_base else finish(model, device=device)  # type: ignore[no-any-return]


def finish(model: Any, *, device: str) -> Any:  # noqa: ANN401
    """Return a loaded model ready for use: nothing of it is backed by its file any more."""
    own_the_weights(model)
    model = model.eval().to(device)
    if device == "cpu":
        pack_linears(model)
    return model


def _without_prefix(name: str, unused: tuple[str, ...]) -> str:
    """Return a tensor's name without that of the base model (`bert.pooler...`)."""
    first, _, rest = name.partition(".")
    return rest if rest.startswith(unused) and first.isalpha() else name


def _class_for(config: Any, kind: str) -> Any:  # noqa: ANN401
    """Return the class of transformers to load a configuration's model with.

    Raises:
        CheckpointUnsupported: It is no model, or none that gives a vector for a text.
    """
    import transformers

    architecture = str(next(iter(getattr(config, "architectures", None) or ()), ""))
    refuse_architecture(architecture)
    if kind != AUTO_MODEL:
        chosen = getattr(transformers, kind, None)
        if isinstance(chosen, type) and issubclass(chosen, transformers.PreTrainedModel):
            return chosen
        raise CheckpointUnsupported(f"transformers has no model class {kind!r}.")
    if architecture.endswith(ENCODER_HALF):  # only the encoder was saved
        return transformers.AutoModelForTextEncoding
    if getattr(config, "is_encoder_decoder", False):
        refuse_encoder_decoder(architecture or config.model_type)
    return transformers.AutoModel


def refuse_architecture(name: str) -> None:
    """Refuse a model class that gives no vector for a text.

    Raises:
        CheckpointUnsupported: It is one; the message says what it does.
    """
    for part, reason in NO_VECTOR.items():
        if part in name:
            raise CheckpointUnsupported(f"{name} {reason}.")


def refuse_encoder_decoder(name: str) -> None:
    """Refuse a model whose vector might be its encoder's or its decoder's.

    Raises:
        CheckpointUnsupported: Always.
    """
    raise CheckpointUnsupported(
        f"{name} is an encoder-decoder: only its encoder alone (T5EncoderModel) is read, or what "
        "OpenMatch saved with an openmatch_config.json."
    )


def own_the_weights(module: "nn.Module") -> None:
    """Replace every tensor by a copy, so that none is backed by its file any more."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()


def max_positions(config: Any) -> int | None:  # noqa: ANN401
    """Return how many tokens a transformer's position embeddings are for, None: no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    if config.model_type in POSITIONS_BEHIND_PADDING:
        positions -= config.pad_token_id + 1
    return positions


def agree(flag: str, said: Any, recorded: Any, *, where: str = "the checkpoint") -> Any:  # noqa: ANN401
    """Return what a flag and a file (`where`) say of one thing; None is silence.

    Raises:
        CheckpointUnsupported: They say different things.
    """
    if said is not None and recorded is not None and said != recorded:
        raise CheckpointUnsupported(
            f"{flag} says {said!r}, but {where} says {recorded!r}: leave the flag out, or validate "
            "it apart."
        )
    return recorded if said is None else said


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
