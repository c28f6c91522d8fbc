"""The tokenizer, set up so that whoever loads it from a checkpoint makes the same tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trainer.errors import InputError


def load_tokenizer(name_or_path: str, *, append_eos: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer; one without a padding token pads with its end-of-text token.

    Args:
        name_or_path: folder or hub name.
        append_eos: end every text with the end-of-text token, of which one is enough.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Tokenizer {name_or_path!r} could not be loaded: {str(error).splitlines()[0]} "
            "Give --tokenizer_name_or_path a folder with tokenizer files, or a hub name."
        ) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if append_eos:
        _append_eos(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Some decoders' tokenizers pad left, for generation; an embedding is the same either way only
    # if positions are counted from the first token, so that we pad right.
    tokenizer.padding_side = "right"
    return tokenizer


def _append_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make it part of what the tokenizer does: truncation then leaves room for it."""
    eos = tokenizer.eos_token_id
    if eos is None:
        raise InputError("--append_eos_token: the tokenizer has no end-of-text token.")
    special = SpecialTokens.of(tokenizer)
    if special.after[-1:] == (eos,):
        return
    around = [list(special.before), [*special.after, eos]]
    before, after = (tokenizer.convert_ids_to_tokens(ids) for ids in around)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        special_tokens=list(zip([*before, *after], [*around[0], *around[1]], strict=True)),
    )


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids that a tokenizer puts around those of a text."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "SpecialTokens":
        """Read them off a text with and without."""
        plain = tuple(tokenizer("a", add_special_tokens=False)["input_ids"])
        whole = tuple(tokenizer("a")["input_ids"])
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return cls(whole[:start], whole[start + len(plain) :])
        raise InputError("The tokenizer changes a text's own tokens where it adds special ones.")

    def around(self, ids: Sequence[int], *, max_length: int) -> list[int]:
        """Return ids with special tokens, cut to a length that counts these."""
        kept = max(0, max_length - len(self.before) - len(self.after))
        return [*self.before, *ids[:kept], *self.after]

    def are_in(self, ids: Sequence[int]) -> bool:
        """Say whether the ids have special tokens already."""
        before, after = self.before, self.after
        if not before and not after:
            return False
        ends = tuple(ids[len(ids) - len(after) :])
        return tuple(ids[: len(before)]) == before and ends == after
