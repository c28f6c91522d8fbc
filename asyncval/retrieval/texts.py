"""Texts as one checkpoint wants them: its tokenizer, its prefix, no more tokens than it takes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from asyncval.core.errors import CheckpointUnsupported
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Text
from asyncval.retrieval.tokens import Recipe, TokenCache, Tokenizer, TokenStore

DEFAULT_LENGTHS = (32, 128)
"""Tokens of a query and of a passage, as in the toolkits, where nobody says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizers:
    """Those of a checkpoint, which mostly are one and the same."""

    queries: Tokenizer
    passages: Tokenizer


def load_tokenizers(loaded: LoadedCheckpoint, options: EncoderOptions, *, name: str) -> Tokenizers:
    """Return the tokenizers of a checkpoint.

    Each is the one that was asked for, else the checkpoint's, else its parent's.

    Args:
        loaded: The checkpoint.
        options: What the user says of it.
        name: What to call it in an error.

    Raises:
        CheckpointUnsupported: There is none, or it cannot be loaded.
    """
    places = [
        options.tokenizer or each.tokenizer_folder for each in (loaded.queries, loaded.passages)
    ]
    if None in places:
        raise CheckpointUnsupported(
            f"There is no tokenizer in {name!r} or in the folder above it: give one with "
            "--tokenizer_name_or_path."
        )
    tokenizers = {
        place: Tokenizer(str(place), trust_remote_code=options.trust_remote_code)
        for place in set(places)
    }
    return Tokenizers(queries=tokenizers[places[0]], passages=tokenizers[places[1]])


def load_tokens(
    loaded: LoadedCheckpoint,
    tokenizers: Tokenizers,
    *,
    options: EncoderOptions,
    cache: TokenCache,
    content: str,
    texts: Callable[[], Iterable[Text]],
    is_query: bool,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[TokenStore, tuple[str, ...]]:
    """Return the tokens of all texts, and what to say of how they were made, in sentences.

    Args:
        loaded: The checkpoint.
        tokenizers: Its tokenizers.
        options: What the user says of it.
        cache: Where tokens are kept.
        content: A digest of the texts' files.
        texts: Gives the texts, in order; called only if they must be tokenised.
        is_query: Whether they are queries, else passages.
        on_progress: Told how many texts are done.

    Raises:
        CheckpointBroken: The tokenizer does not know these texts.
        InvalidData: The texts cannot be tokenised.
    """
    reading = loaded.queries if is_query else loaded.passages
    asked = options.q_max_len if is_query else options.p_max_len
    wanted = asked or reading.trained_length or DEFAULT_LENGTHS[0 if is_query else 1]
    length = min(wanted, reading.max_length or wanted)
    store = cache.get(
        content=content,
        texts=texts,
        tokenizer=tokenizers.queries if is_query else tokenizers.passages,
        recipe=Recipe(
            max_length=length,
            prefix=reading.prefix,
            lower_case=reading.lower_case,
            special_tokens=reading.special_tokens,
            append_eos=reading.append_eos,
        ),
        on_progress=on_progress,
    )
    remarks = []
    flag = "--q_max_len" if is_query else "--p_max_len"
    if length < wanted:
        remarks.append(f"{flag} {wanted} became {length}: the model takes no more.")
    template = options.query_template if is_query else options.doc_template
    if reading.trained_template not in (None, template):
        flag = "--query_template" if is_query else "--doc_template"
        here = f"{template!r} here" if template else "none here"
        remarks.append(f"{flag} was {reading.trained_template!r} in training, and is {here}.")
    return store, tuple(remarks)
