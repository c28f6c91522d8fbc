"""How trainers write checkpoints and delete them: file by file, in the order of the libraries."""

import json
import os
import shutil
import time
import zlib
from fnmatch import fnmatch
from pathlib import Path

SENTINEL = "trainer_state.json"
TRAINING_FILES = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
KINDS = ("huggingface", "sharded", "sentence-transformers", "peft")
ORDER = (
    "config_sentence_transformers.json",
    "adapter_model.safetensors",
    "adapter_config.json",
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "openmatch_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "sentence_bert_config.json",
    "[0-9]_*/*",
    "modules.json",
    "README.md",
    *TRAINING_FILES,
    "rng_state_*.pth",
    SENTINEL,
)


def make_source(kind: str, folder: Path, *, seed: int) -> Path:
    """Write a whole checkpoint of a kind, whose files `save` copies; its step is the seed."""
    from tests.models import bert_config, make_tokenizer, save_huggingface, save_peft

    if kind == "huggingface":
        save_huggingface(folder, seed=seed)
    elif kind == "sharded":
        import torch
        from transformers import BertModel

        torch.manual_seed(seed)
        model = BertModel(bert_config())
        num_bytes = sum(tensor.numel() for tensor in model.state_dict().values()) * 4
        model.save_pretrained(folder, max_shard_size=num_bytes // 3)
        make_tokenizer().save_pretrained(folder)
    elif kind == "peft":
        base = folder.with_name("base-of-adapters")
        if not base.exists():
            save_huggingface(base)
        save_peft(folder, base=str(base), seed=seed)
        make_tokenizer().save_pretrained(folder)
    else:
        save_sentence_transformers_with(seed, folder)
    for name in TRAINING_FILES:
        (folder / name).write_bytes(os.urandom(200))
    (folder / SENTINEL).write_text(json.dumps({"global_step": seed}))
    return folder


def save_sentence_transformers_with(seed: int, folder: Path) -> None:
    """Write four modules: transformer, pooling, dense and normalisation."""
    from tests.models import save_huggingface, save_sentence_transformers

    save_sentence_transformers(
        folder,
        kinds=("Transformer", "Pooling", "Dense", "Normalize"),
        model_config={"similarity_fn_name": "cosine"},
        bert_values={"max_seq_length": 32},
    )
    other = save_huggingface(folder.with_name(f"{folder.name}-weights"), seed=seed)
    shutil.move(other / "model.safetensors", folder / "model.safetensors")
    shutil.rmtree(other)


def order(source: Path) -> list[str]:
    """Return a checkpoint's files in the order in which its trainer writes them."""
    names = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    ranks = {
        name: next(rank for rank, pattern in enumerate(ORDER) if fnmatch(name, pattern))
        for name in names
    }
    ordered = sorted(names, key=lambda name: (ranks[name], name))
    if "modules.json" in names:  # its trainer writes the tokenizer a second time
        place = ordered.index("modules.json") + 1
        ordered[place:place] = [name for name in ordered if name.startswith("tokenizer")]
    return ordered


def save(
    source: Path,
    target: Path,
    *,
    step: int,
    aside: bool = True,
    pause: float = 0.0,
    stop_after: int | None = None,
    tears_file: bool = True,
) -> None:
    """Write a checkpoint as the trainer of its kind does, over an older one if there is one.

    Args:
        source: A whole one.
        target: Where it goes.
        step: What its `trainer_state.json` says.
        aside: Write weights aside and rename them, as safetensors 0.8 does, or in place.
        pause: The seconds between two files.
        stop_after: Leave it torn after so many files.
        tears_file: Write half of the next one then.
    """
    target.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(order(source)):
        content = (source / name).read_bytes()
        if name == SENTINEL:
            content = json.dumps({"global_step": step, "epoch": 0.5}).encode()
        path = target / name
        path.parent.mkdir(exist_ok=True)
        is_aside = aside and name.endswith(".safetensors")
        place = path.with_name(".tmpAbCdEf") if is_aside else path
        is_last = number == stop_after
        if is_last and not tears_file:
            return
        with place.open("wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            if is_last:
                return
            time.sleep(pause / 2)
            file.write(content[len(content) // 2 :])
        if is_aside:
            place.rename(path)
        time.sleep(pause / 2)


def delete(target: Path, *, pause: float = 0.0) -> None:
    """Remove a checkpoint as `shutil.rmtree` does, with a pause after each file."""

    def place(path: Path) -> tuple[int, int]:
        return -len(path.parts), zlib.crc32(f"{target.name} {path.name}".encode())  # any order

    for path in sorted(target.rglob("*"), key=place):
        path.rmdir() if path.is_dir() else path.unlink()
        if pause:
            time.sleep(pause)
    target.rmdir()


def rotate(root: Path, *, limit: int, pause: float = 0.0) -> None:
    """Delete the oldest checkpoints until `limit` are left."""
    kept = sorted(root.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in kept[:-limit]:
        delete(path, pause=pause)
