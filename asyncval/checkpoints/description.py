"""What a checkpoint is, told without its weights, and who says each thing of it.

`load` of a layout goes by the same description that `asyncval explain` prints.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import (
    DEFAULT_POOLING,
    TransformerEncoder,
    agree,
    local_folders,
    max_positions,
    tokenizer_folder,
    unit_length,
)
from asyncval.core.errors import CheckpointBroken
from asyncval.core.ports import Encoder
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Reading, Similarity

if TYPE_CHECKING:
    from torch import Tensor, nn

ASSUMED = "assumed"
LANGUAGE_MODELS = ("ForMaskedLM", "ForCausalLM")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing about a checkpoint, and who says it: a file, a flag, or nobody."""

    value: Any
    source: str

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.value)) if isinstance(self.value, tuple) else self.value
        words = {True: "yes", False: "no", None: "none", "": "none"}
        return f"{words.get(shown, shown)} ({self.source})"


NO_HEAD = Fact("none", "no file of one")
ITSELF = Fact(("the checkpoint itself",), "one for queries and passages")
SILENCE = Fact(None, "the checkpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """How a checkpoint turns texts into vectors.

    `towers` names the transformer for queries and that for passages, or the one for both; `head`
    says in words what follows the pooling. `tokenizer` is a folder or a name, None where there
    is none; `base` is the model that an adapter changes. `remarks` is what the user should know
    besides.
    """

    towers: Fact
    pooling: Fact
    head: Fact
    normalize: Fact
    similarity: Fact
    query_prefix: Fact
    passage_prefix: Fact
    append_eos: Fact
    tokenizer: Fact
    base: Path | None = None
    remarks: tuple[str, ...] = ()

    @property
    def closing(self) -> list[Callable[["Tensor"], "Tensor"]]:
        """The last step: unit length where normalisation or the cosine asks for it."""
        wants_unit = self.normalize.value or self.similarity.value == "cos"
        return [unit_length] if wants_unit else []

    @property
    def assumed(self) -> tuple[str, ...]:
        """What is to be said with every result: assumptions where the pooling is one, remarks."""
        if self.pooling.source != ASSUMED:
            return self.remarks
        further = {"no --normalize": self.normalize, "--similarity ip": self.similarity}
        others = [words for words, fact in further.items() if fact.source == ASSUMED]
        too = f", and so is {' and '.join(others)}" if others else ""
        said = f"--pooling {self.pooling.value} is assumed{too}: the checkpoint does not say."
        return (said, *self.remarks)


def settle(flag: str, said: Any, recorded: Fact, default: Any) -> Fact:  # noqa: ANN401
    """Return what holds: what a file records, else what a flag says, else the default.

    Raises:
        CheckpointUnsupported: File and flag say different things.
    """
    value = agree(flag, said, recorded.value, where=recorded.source)
    if recorded.value is not None:
        return recorded
    return Fact(default, ASSUMED) if value is None else Fact(value, flag)


def describe(
    folder: Folder,
    options: EncoderOptions,
    *,
    towers: Fact,
    pooling: Fact = SILENCE,
    head: Fact = NO_HEAD,
    normalize: Fact = SILENCE,
    similarity: Fact = SILENCE,
    default_similarity: Similarity = "ip",
    prefixes: tuple[Fact, Fact] = (SILENCE, SILENCE),
    tokenizer: Fact | None = None,
    base: Path | None = None,
    remarks: Sequence[str] = (),
) -> Description:
    """Put together what the files of a checkpoint record and what flags say.

    Args:
        folder: The checkpoint.
        options: The flags.
        towers: The transformer for queries and that for passages, or the one for both.
        pooling: What a file says of it; the value None is silence, as for the next two.
        head: What follows the pooling, in words.
        normalize: Whether vectors are brought to unit length.
        similarity: `ip` or `cos`.
        default_similarity: What it is where nobody says it.
        prefixes: What is put before queries and before passages.
        tokenizer: Where it is, None where it lies in the usual places.
        base: The model that an adapter changes, which may have the tokenizer.
        remarks: What else the user should know.

    Raises:
        CheckpointError: A flag contradicts a file, or a file cannot be read.
    """
    return Description(
        towers=towers,
        pooling=settle("--pooling", options.pooling, pooling, DEFAULT_POOLING),
        head=head,
        normalize=settle("--normalize", options.normalize, normalize, default=False),
        similarity=settle("--similarity", options.similarity, similarity, default_similarity),
        query_prefix=settle("--query_prefix", options.query_prefix, prefixes[0], ""),
        passage_prefix=settle("--passage_prefix", options.passage_prefix, prefixes[1], ""),
        append_eos=settle("--append_eos_token", options.append_eos, SILENCE, default=False),
        tokenizer=tokenizer or find_tokenizer(folder, options, base=base),
        base=base,
        remarks=(*remarks, *_language_model_remarks(folder)),
    )


def loaded(
    description: Description, encoder: Encoder, *, max_lengths: Sequence[int | None]
) -> LoadedCheckpoint:
    """Return an encoder with what a description says of its texts.

    `max_lengths` has the most tokens that the transformer for queries takes and that for
    passages, or those of the one for both.
    """
    queries, passages = (
        Reading(
            tokenizer_folder=folder_of(description.tokenizer),
            max_length=max_length,
            prefix=prefix.value,
            append_eos=description.append_eos.value,
        )
        for prefix, max_length in (
            (description.query_prefix, max_lengths[0]),
            (description.passage_prefix, max_lengths[-1]),
        )
    )
    return LoadedCheckpoint(
        encoder=encoder, queries=queries, passages=passages, assumed=description.assumed
    )


def one_tower(backbone: "nn.Module", description: Description) -> LoadedCheckpoint:
    """Return a transformer for queries and passages with a description's pooling and length."""
    encoder = TransformerEncoder(
        backbone, pooling=description.pooling.value, head=description.closing
    )
    return loaded(description, encoder, max_lengths=[max_positions(backbone.config)])


def find_tokenizer(
    folder: Folder, options: EncoderOptions, *, place: str = "", base: Path | None = None
) -> Fact:
    """Return the tokenizer and where it was found, first in `place` below the checkpoint."""
    if options.tokenizer:
        return Fact(options.tokenizer, "--tokenizer_name_or_path")
    for path, source in _tokenizer_places(folder, place, base):
        if tokenizer_folder(path) is not None:
            return Fact(path, source)
    return Fact(None, "neither here, nor above, nor beside a base model: --tokenizer_name_or_path")


def folder_of(tokenizer: Fact) -> Path | None:
    """Return where a tokenizer is, None where a flag names it or nothing does."""
    return tokenizer.value if isinstance(tokenizer.value, Path) else None


def _tokenizer_places(folder: Folder, place: str, base: Path | None) -> Iterator[tuple[Path, str]]:
    yield folder.path / place, f"{place}, as the checkpoint has it" if place else "the checkpoint"
    yield (folder.origin or folder.path).parent, "the folder above"
    if base is not None:
        yield base, "the base model"
    for name in sorted(folder.files):
        if name.rpartition("/")[2] == "config.json":
            for start in local_folders(folder, read_config(folder, name).get("_name_or_path")):
                yield start, f"_name_or_path of {name}"


def read_config(folder: Folder, name: str = "config.json") -> dict[str, Any]:
    """Return a JSON object of a checkpoint; one that is not there is empty.

    Raises:
        CheckpointBroken: It is no JSON object.
        CheckpointIncomplete: It is no JSON (yet).
    """
    content = folder.read_json(name) if name in folder else {}
    if not isinstance(content, dict):
        raise CheckpointBroken(f"{name} has no object in it.")
    return content


def architecture_of(config: dict[str, Any]) -> str:
    """Return the class that a configuration was saved from, empty if it does not say."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _language_model_remarks(folder: Folder) -> Iterator[str]:
    architecture = architecture_of(read_config(folder))
    if architecture.endswith(LANGUAGE_MODELS):
        yield (
            f"config.json says {architecture}: a language model as pre-training and SPLADE save "
            "it. Its head is left out; was it trained to give dense vectors?"
        )
