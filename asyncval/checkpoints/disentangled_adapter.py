"""Disentangled-Retriever's adapters: a folder of its own, on a transformer that lies elsewhere."""

from collections.abc import Sequence

from asyncval.checkpoints.adapters import adapt, read_members
from asyncval.checkpoints.bases import find_base_folder
from asyncval.checkpoints.description import (
    Description,
    Fact,
    describe,
    one_tower,
    read_config,
)
from asyncval.checkpoints.disentangled import recorded
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.heads import read_tensors
from asyncval.checkpoints.loading import finish, load_backbone, tokenizer_files
from asyncval.core.errors import CheckpointIncomplete, CheckpointUnsupported
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Precision

CONFIG = "adapter_config.json"
WEIGHTS = "pytorch_adapter.bin"


class DisentangledAdapter:
    """What its training with adapters writes: neither a configuration nor the base's weights."""

    name = "disentangled-adapter"

    def recognises(self, folder: Folder) -> bool:
        """Say whether an adapter that is none of PEFT's lies in it or in a folder of its own."""
        return "config.json" not in folder and bool(_adapter_folders(folder))

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return the adapter and the tokenizer; the base model is not ours to keep."""
        prefix = _adapter_folder(folder)
        for name in (prefix + CONFIG, prefix + WEIGHTS):
            if name not in folder:
                raise CheckpointIncomplete(f"{name} is missing.")
        read_members(read_config(folder, prefix + CONFIG), where=prefix + CONFIG)
        return [prefix + CONFIG, prefix + WEIGHTS, *tokenizer_files(folder)]

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Read the adapter's configuration; the base may say pooling and similarity.

        Raises:
            CheckpointUnsupported: Nobody says the pooling, for which its trainer has no default.
        """
        prefix = _adapter_folder(folder)
        adapter = read_config(folder, prefix + CONFIG)
        named, source = adapter.get("model_name"), prefix + CONFIG
        base = find_base_folder(folder, options, named=named, where=source)
        where = f"config.json of {base.value}"
        pooling, similarity = recorded(read_config(Folder.listing(base.value)), where)
        if pooling.value is None and options.pooling is None:
            raise CheckpointUnsupported(
                f"{source} does not say the pooling, and its trainer has no default: give "
                "--pooling mean or cls."
            )
        kinds = " and ".join(member.kind for member in read_members(adapter, where=source))
        return describe(
            folder,
            options,
            towers=Fact((f"{base.value} with {kinds}",), base.source),
            pooling=pooling,
            similarity=similarity,
            base=base.value,
        )

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Load the base model and put the adapter into it."""
        description = self.describe(folder, options)
        prefix = _adapter_folder(folder)
        config = read_config(folder, prefix + CONFIG)
        assert description.base is not None
        backbone = load_backbone(
            description.base,
            device=device,
            precision=precision,
            trust_remote_code=options.trust_remote_code,
            is_base=True,
        )
        adapt(
            backbone,
            read_members(config, where=prefix + CONFIG),
            read_tensors(folder, prefix + WEIGHTS, device="cpu"),
            name=str(config.get("name") or prefix.strip("/")),
            file=prefix + WEIGHTS,
        )
        return one_tower(finish(backbone, device=device), description)


def _adapter_folders(folder: Folder) -> list[str]:
    """Return where adapters are below a checkpoint, each empty or with a closing slash."""
    found = {name.removesuffix(WEIGHTS) for name in folder.files if name.endswith(WEIGHTS)}
    for name in folder.files:
        if name.endswith(f"/{CONFIG}") and "config" in read_config(folder, name):
            found.add(name.removesuffix(CONFIG))
    return sorted(prefix for prefix in found if prefix.count("/") <= 1)


def _adapter_folder(folder: Folder) -> str:
    """Return where the one adapter is.

    Raises:
        CheckpointUnsupported: There are several, and nothing says which one is active.
    """
    found = _adapter_folders(folder)
    if len(found) > 1:
        raise CheckpointUnsupported(
            f"There are the adapters {', '.join(found)}, and nothing says which one counts."
        )
    if not found:
        raise CheckpointIncomplete(f"{CONFIG} is missing.")
    return found[0]
