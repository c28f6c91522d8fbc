"""Texts become token ids once, and are kept as flat arrays on disk.

A store is a folder with `ids.bin` (all token ids after one another, special tokens
included), `offsets.bin` (int64 [N+1], where each text begins), `text_ids.bin` and
`text_id_offsets.bin` (the same for the ids of the texts, in UTF-8) and `about.json`. It is named
by a digest of everything that it depends on, written aside and renamed, and mapped into memory
by whoever uses it. Neither writing nor reading holds more than some thousand texts in memory.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from asyncval.core.errors import CheckpointBroken, CheckpointUnsupported, InvalidData
from asyncval.core.types import Text
from asyncval.retrieval.pruning import being_made, hold, prune

FORMAT = 2
TEXTS_AT_ONCE = 4096
IDS = ("ids.bin", "offsets.bin")
TEXT_IDS = ("text_ids.bin", "text_id_offsets.bin")
MAX_UNKNOWN = 0.5
"""The share of unknown tokens above which a tokenizer cannot be the right one."""


class TextIds(Sequence[str]):
    """Ids of N texts, kept as UTF-8 bytes, uint8, and where each begins, int64 [N+1]."""

    def __init__(self, encoded: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self._encoded = encoded
        self._offsets = offsets

    @classmethod
    def of(cls, ids: Iterable[str]) -> "TextIds":
        """Return these ids."""
        encoded = [each.encode() for each in ids]
        return cls(
            np.frombuffer(b"".join(encoded), dtype=np.uint8),
            np.cumsum([0, *map(len, encoded)], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "TextIds": ...
    def __getitem__(self, index: int | slice) -> "str | TextIds":
        if isinstance(index, slice):
            return TextIds(self._encoded, _offsets_of(self._offsets, index))
        place = range(len(self))[index]
        begin, end = self._offsets[place : place + 2]
        return self._encoded[begin:end].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        """Yield them without holding all in memory."""
        for start in range(0, len(self), TEXTS_AT_ONCE):
            offsets = self._offsets[start : start + TEXTS_AT_ONCE + 1]
            some = self._encoded[offsets[0] : offsets[-1]].tobytes()
            for begin, end in pairwise((offsets - offsets[0]).tolist()):
                yield some[begin:end].decode()

    def take(self, rows: NDArray[np.int64]) -> "TextIds":
        """Return the ids in these rows, in this order."""
        return TextIds.of(self[row] for row in rows.tolist())


def _offsets_of(offsets: NDArray[np.int64], texts: slice) -> NDArray[np.int64]:
    """Return the offsets of some consecutive texts, their end included."""
    start, stop, step = texts.indices(len(offsets) - 1)
    assert step == 1, "texts are taken in portions"
    return offsets[start : max(start, stop) + 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStore:
    """N tokenised texts: `ids` [all tokens], `offsets` int64 [N+1], `text_ids` [N]."""

    ids: NDArray[np.unsignedinteger[Any]]
    offsets: NDArray[np.int64]
    text_ids: TextIds
    unknown_rate: float = 0.0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, texts: slice) -> "TokenStore":
        """Return consecutive texts, over the same memory."""
        return replace(
            self, offsets=_offsets_of(self.offsets, texts), text_ids=self.text_ids[texts]
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of each text, [N]."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.int64]) -> "TokenStore":
        """Return the texts in these rows, in this order, in memory."""
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        parts = [self.ids[start:end] for start, end in zip(starts, ends, strict=True)]
        return TokenStore(
            ids=np.concatenate([self.ids[:0], *parts]),
            offsets=np.concatenate([np.zeros(1, dtype=np.int64), ends - starts]).cumsum(),
            text_ids=self.text_ids.take(rows),
            unknown_rate=self.unknown_rate,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How texts become tokens: `max_length` counts the special tokens and an appended one."""

    max_length: int
    prefix: str = ""
    lower_case: bool = False
    special_tokens: bool = True
    append_eos: bool = False

    def apply(self, content: str) -> str:
        """Return the text that the tokenizer gets."""
        text = self.prefix + content
        return text.lower() if self.lower_case else text


class Tokenizer:
    """A fast tokenizer of transformers, read from a local folder or the local cache."""

    def __init__(self, name_or_path: str, *, trust_remote_code: bool = False) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                name_or_path, local_files_only=True, trust_remote_code=trust_remote_code
            )
            state = self._tokenizer.backend_tokenizer.to_str()
        except Exception as error:  # transformers raises almost anything for a bad folder
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise CheckpointUnsupported(
                f"The tokenizer {name_or_path!r} cannot be loaded: {reason} Give a local folder "
                "with --tokenizer_name_or_path."
            ) from error
        settings = [state, self._tokenizer.eos_token_id, self._tokenizer.truncation_side]
        self.digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        self._tokenizer.model_max_length = int(1e9)  # our own limit is the one that counts

    @cached_property
    def vocabulary_size(self) -> int:
        """One more than the largest id, added tokens included."""
        return max(self._tokenizer.get_vocab().values()) + 1

    def encode(self, texts: Sequence[Text], recipe: Recipe) -> list[list[int]]:
        """Return the ids of every text, special tokens included, cut to the maximum length."""
        end = self._end(recipe)
        num_special = len(end) + (sum(map(len, self._special_ids)) if recipe.special_tokens else 0)
        if recipe.max_length <= num_special:
            raise InvalidData(
                f"A maximum length of {recipe.max_length} tokens leaves no room for a text beside "
                f"{num_special} special tokens: raise --q_max_len or --p_max_len."
            )
        if isinstance(texts[0].content, str):
            if not all(isinstance(text.content, str) for text in texts):
                raise InvalidData("Some texts are token ids and some are strings: use one form.")
            fast = self._tokenizer.backend_tokenizer
            fast.no_padding()
            fast.enable_truncation(
                recipe.max_length - len(end), direction=self._tokenizer.truncation_side
            )
            encoded = fast.encode_batch_fast(
                [recipe.apply(str(text.content)) for text in texts],
                add_special_tokens=recipe.special_tokens,
            )
            return [each.ids + end for each in encoded]
        if recipe.special_tokens:
            self._check_bare(texts)
        return [[*self._add_special(text, recipe, len(end)), *end] for text in texts]

    def _end(self, recipe: Recipe) -> list[int]:
        if not recipe.append_eos:
            return []
        if self._tokenizer.eos_token_id is None:
            raise CheckpointUnsupported(
                "--append_eos_token: the tokenizer has no end-of-text token to append."
            )
        return [self._tokenizer.eos_token_id]

    def _add_special(self, text: Text, recipe: Recipe, num_appended: int) -> list[int]:
        content = text.content
        if isinstance(content, str):
            raise InvalidData("Some texts are token ids and some are strings: use one form.")
        if recipe.prefix:
            raise InvalidData(
                f"The text {text.id!r} is a list of token ids, so the prefix {recipe.prefix!r} "
                "cannot be put before it: use raw text."
            )
        if max(content, default=0) >= self.vocabulary_size:
            raise InvalidData(
                f"The text {text.id!r} has the token id {max(content)}, but the tokenizer knows "
                f"only {self.vocabulary_size}: it was made with another one."
            )
        before, after = self._special_ids if recipe.special_tokens else ([], [])
        kept = recipe.max_length - len(before) - len(after) - num_appended
        return [*before, *content[: max(kept, 0)], *after]

    def _check_bare(self, texts: Sequence[Text]) -> None:
        """Refuse token ids of which all have the special tokens already.

        Raises:
            InvalidData: All begin with those that stand before a text; or, where none do, all
                end in those that stand behind.
        """
        before, after = map(tuple, self._special_ids)
        contents = [text.content for text in texts if text.content]
        mark, place = (before, "begin with") if before else (after, "end in")
        there = [ids[: len(mark)] if before else ids[-len(mark) :] for ids in contents]
        if mark and there and all(each == mark for each in there):
            names = " ".join(self._tokenizer.convert_ids_to_tokens(list(mark)))
            raise InvalidData(
                f"The token ids of {texts[0].id!r} and all others {place} {names}, which the "
                "tokenizer adds itself: it would stand twice. Give ids without special tokens."
            )

    @cached_property
    def _special_ids(self) -> tuple[list[int], list[int]]:
        """Return the ids that the tokenizer puts before and after a text."""
        bare = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self._tokenizer("a")["input_ids"]
        start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return whole[:start], whole[start + len(bare) :]

    def count_unknown(self, ids: NDArray[np.unsignedinteger[Any]]) -> int:
        """Return how many of the ids are the unknown token."""
        unknown = self._tokenizer.unk_token_id
        return 0 if unknown is None else int((ids == unknown).sum())


class TokenCache:
    """Token stores in a folder, shared by processes and found again after a restart.

    Args:
        folder: Where.
        max_bytes: What the stores may take; beyond it those that were not used for longest are
            removed, but none that a process uses. None for no limit.
    """

    def __init__(self, folder: Path, *, max_bytes: int | None = None) -> None:
        self._folder = folder / "tokens"
        self._max_bytes = max_bytes
        self._held: dict[Path, int] = {}

    def get(
        self,
        *,
        content: str,
        texts: Callable[[], Iterable[Text]],
        tokenizer: Tokenizer,
        recipe: Recipe,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> TokenStore:
        """Return the store for these texts, made now if it is not there yet.

        Args:
            content: A digest of the texts' files.
            texts: Gives the texts, in order; called only if they must be tokenised.
            tokenizer: The tokenizer; its digest is part of the store's name.
            recipe: Prefix, length and case; part of the store's name.
            on_progress: Told how many texts are done.

        Raises:
            CheckpointBroken: Most tokens are unknown, so the tokenizer is not the right one.
        """
        wanted = json.dumps([FORMAT, content, tokenizer.digest, *astuple(recipe)])
        place = self._folder / hashlib.sha256(wanted.encode()).hexdigest()[:32]
        while not self._hold(place):
            self._make(place, texts(), tokenizer, recipe, on_progress)
        store = _open_store(place)
        if store.unknown_rate > MAX_UNKNOWN:
            raise CheckpointBroken(
                f"{store.unknown_rate:.0%} of all tokens are unknown to the tokenizer: it does not "
                "fit these texts, or its vocabulary is missing."
            )
        return store

    def _hold(self, place: Path) -> bool:
        """Keep a store from being removed while this process lives; say whether it is there."""
        held = hold(place)
        if held is None:
            return False
        if place in self._held:
            os.close(self._held.pop(place))
        else:  # it was made, or is used for the first time: others may have to go
            self._prune()
        self._held[place] = held
        return True

    def _prune(self) -> None:
        if self._max_bytes is not None:
            prune(self._folder, max_bytes=self._max_bytes)

    def _make(
        self,
        place: Path,
        texts: Iterable[Text],
        tokenizer: Tokenizer,
        recipe: Recipe,
        on_progress: Callable[[int], None],
    ) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with being_made(place.parent) as partial:
            _write_store(partial, texts, tokenizer, recipe, on_progress)
            try:
                partial.rename(place)
            except OSError:
                if not place.exists():  # else another process was faster, with the same content
                    raise


def _write_store(
    folder: Path,
    texts: Iterable[Text],
    tokenizer: Tokenizer,
    recipe: Recipe,
    on_progress: Callable[[int], None],
) -> None:
    dtype = np.dtype(np.uint16 if tokenizer.vocabulary_size <= 2**16 else np.uint32)
    done = unknown = 0
    with _Ragged(folder, IDS) as tokens, _Ragged(folder, TEXT_IDS) as text_ids:
        remaining = iter(texts)
        while some := list(islice(remaining, TEXTS_AT_ONCE)):
            encoded = tokenizer.encode(some, recipe)
            flat = np.fromiter(chain.from_iterable(encoded), dtype=dtype)
            tokens.add(flat, list(map(len, encoded)))
            names = [text.id.encode() for text in some]
            text_ids.add(np.frombuffer(b"".join(names), dtype=np.uint8), list(map(len, names)))
            unknown += tokenizer.count_unknown(flat)
            done += len(some)
            on_progress(done)
        about = {"dtype": dtype.name, "unknown_rate": unknown / max(tokens.end, 1)}
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")


class _Ragged:
    """Rows of different lengths that are written after one another, and where each begins."""

    def __init__(self, folder: Path, names: tuple[str, str]) -> None:
        self.end = 0
        self._values, self._offsets = ((folder / name).open("wb") for name in names)
        np.zeros(1, dtype=np.int64).tofile(self._offsets)

    def __enter__(self) -> "_Ragged":
        return self

    def __exit__(self, *exception: object) -> None:
        self._values.close()
        self._offsets.close()

    def add(self, values: NDArray[Any], lengths: list[int]) -> None:
        """Write some rows, one after another, and their lengths."""
        values.tofile(self._values)
        ends = self.end + np.cumsum(lengths, dtype=np.int64)
        ends.tofile(self._offsets)
        self.end = int(ends[-1])


def _mapped(folder: Path, names: tuple[str, str], dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Map rows and offsets; nothing can be mapped of an empty file."""
    path, offsets = (folder / name for name in names)
    values = np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)
    return values, np.memmap(offsets, dtype=np.int64, mode="r")


def _open_store(folder: Path) -> TokenStore:
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    ids, offsets = _mapped(folder, IDS, about["dtype"])
    return TokenStore(
        ids=ids,
        offsets=offsets,
        text_ids=TextIds(*_mapped(folder, TEXT_IDS, "uint8")),
        unknown_rate=about["unknown_rate"],
    )
