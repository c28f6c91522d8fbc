"""Texts as one checkpoint wants them: its tokenizer, its prefix, no more tokens than it takes."""

from collections.abc import Callable, Iterable

from asyncval.core.errors import CheckpointUnsupported
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Text
from asyncval.retrieval.tokens import Recipe, TokenCache, Tokenizer, TokenStore


def load_tokenizer(loaded: LoadedCheckpoint, options: EncoderOptions, *, name: str) -> Tokenizer:
    """Return the tokenizer that was asked for, else the checkpoint's, else its parent's.

    Args:
        loaded: The checkpoint.
        options: What the user says of it.
        name: What to call it in an error.

    Raises:
        CheckpointUnsupported: There is none, or it cannot be loaded.
    """
    wanted = options.tokenizer or loaded.tokenizer_folder
    if wanted is None:
        raise CheckpointUnsupported(
            f"There is no tokenizer in {name!r} or in the folder above it: give one with "
            "--tokenizer_name_or_path."
        )
    return Tokenizer(str(wanted), trust_remote_code=options.trust_remote_code)


def load_tokens(
    loaded: LoadedCheckpoint,
    tokenizer: Tokenizer,
    *,
    options: EncoderOptions,
    cache: TokenCache,
    content: str,
    texts: Callable[[], Iterable[Text]],
    is_query: bool,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[TokenStore, tuple[str, ...]]:
    """Return the tokens of all texts, and what to say of their length: one sentence, or nothing.

    Args:
        loaded: The checkpoint.
        tokenizer: Its tokenizer.
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
    wanted = options.q_max_len if is_query else options.p_max_len
    length = min(wanted, loaded.max_length or wanted)
    store = cache.get(
        content=content,
        texts=texts,
        tokenizer=tokenizer,
        recipe=Recipe(
            max_length=length,
            prefix=loaded.query_prefix if is_query else loaded.passage_prefix,
            lower_case=loaded.lower_case,
        ),
        on_progress=on_progress,
    )
    flag = "--q_max_len" if is_query else "--p_max_len"
    if length < wanted:
        return store, (f"{flag} {wanted} became {length}: the model takes no more.",)
    return store, ()
