"""The `.metadata` of a distributed checkpoint of torch: which tensor lies where in which file.

It is a pickle. Only its own few classes are known here, each as a plain record, so reading it
runs nothing and needs no torch. The format is that of `torch.distributed.checkpoint`'s
`FileSystemWriter`: `Metadata(state_dict_metadata, storage_data, ...)`.
"""

import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from asyncval.core.errors import CheckpointBlocked, CheckpointIncomplete, CheckpointUnsupported

NAME = ".metadata"
PACKAGE = "torch.distributed.checkpoint."
DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "bool"),
    *("int64", "int32", "int16", "int8", "uint8", "complex64", "complex128"),
)
PLAIN: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): dict,
    ("collections", "defaultdict"): lambda *_: {},
}
"""What is made of these is a plain value, all else is a record."""
KNOWN = {
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib._local", "PosixPath"),
    ("builtins", "getattr"),  # of an enumeration, by Python 3.11.0 to 3.11.3; it is not called here
}
REFUSED = (
    *(pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.PERSID, pickle.BINPERSID, pickle.BYTEARRAY8, pickle.NEXT_BUFFER),
    *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
)
"""What a pickle can do and this one never does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a tensor: `length` bytes of `file` from `offset` on, one `torch.save` of it.

    `start` is where the part begins in the tensor, one number an axis.
    """

    file: str
    offset: int
    length: int
    start: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor of the model: its shape, torch's name of its type, and its parts."""

    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[Piece, ...]


class _Record:
    """Whatever the pickle says of an object, without its class: names and values, and no more."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = {}

    def get(self, name: str) -> Any:  # noqa: ANN401
        """Return a field, None where it was left out."""
        return self.state.get(name) if isinstance(self.state, dict) else None


@dataclass(frozen=True, slots=True)
class _Kind:
    """Stands for a class or a function of the pickle; it cannot be changed."""

    make: Callable[..., Any]


class _Unpickler(pickle._Unpickler):  # the one in Python: that in C takes memory as it is told
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if bytes([code]) not in REFUSED
    }

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) in PLAIN:
            return _Kind(PLAIN[module, name])
        if module.startswith(PACKAGE) or (module, name) in KNOWN:
            return _Kind(lambda *_: _Record())
        if module == "torch" and name in DTYPES:
            return name  # it stands for itself
        raise CheckpointUnsupported(f"{NAME} wants {module}.{name}, which no checkpoint needs.")

    def load_make(self) -> None:
        """Make an object of a known kind, whichever way it was pickled."""
        arguments = self.stack.pop()
        kind = self.stack[-1]
        if not isinstance(kind, _Kind):
            raise pickle.UnpicklingError("it calls what cannot be called")
        self.stack[-1] = kind.make(*arguments)

    def load_state(self) -> None:
        """Give a record its state; nothing else has one."""
        state = self.stack.pop()
        record = self.stack[-1]
        if not isinstance(record, _Record):
            raise pickle.UnpicklingError("it gives a state to what has none")
        record.state = state

    def load_items(self) -> None:
        """Fill a dictionary whose keys are records or text: others may take for ever to hash."""
        items = self.pop_mark()
        self._fill(items)

    def load_item(self) -> None:
        """Put one item into a dictionary."""
        items = [*self.stack[-2:]]
        del self.stack[-2:]
        self._fill(items)

    def _fill(self, items: list[Any]) -> None:
        target = self.stack[-1]
        keys = items[::2]
        if type(target) is not dict or not all(isinstance(key, str | _Record) for key in keys):
            raise pickle.UnpicklingError("it has a table of another kind")
        target.update(zip(keys, items[1::2], strict=True))

    dispatch[pickle.REDUCE[0]] = load_make
    dispatch[pickle.NEWOBJ[0]] = load_make
    dispatch[pickle.BUILD[0]] = load_state
    dispatch[pickle.SETITEMS[0]] = load_items
    dispatch[pickle.SETITEM[0]] = load_item


def read_metadata(path: Path) -> dict[str, StoredTensor]:
    """Return every tensor by its name; what is no tensor is left out.

    Raises:
        CheckpointIncomplete: The file is not there or not whole.
        CheckpointUnsupported: It is no such file, or its tensors are compressed.
    """
    try:
        with path.open("rb") as file:
            return dict(_tensors(_unpickle(file)))
    except PermissionError as error:
        raise CheckpointBlocked.at(path) from error
    except OSError as error:
        raise CheckpointIncomplete(f"{path.name} cannot be read: {error.strerror}.") from error


def _unpickle(file: BinaryIO) -> Any:  # noqa: ANN401
    try:
        return _Unpickler(file).load()
    except CheckpointUnsupported:
        raise
    except Exception as error:  # a pickle that breaks off raises nearly anything
        raise CheckpointIncomplete(f"{NAME} is not whole: {error}.") from error


def _tensors(metadata: _Record) -> Iterator[tuple[str, StoredTensor]]:
    try:
        pieces: dict[str, list[Piece]] = {}
        for index, place in metadata.get("storage_data").items():
            if place.get("transform_descriptors"):
                raise CheckpointUnsupported(f"{NAME} has compressed tensors: not supported.")
            piece = Piece(
                file=_file_name(place.get("relative_path")),
                offset=_number(place.get("offset")),
                length=_number(place.get("length")),
                start=tuple(map(_number, index.get("offset") or ())),
            )
            pieces.setdefault(index.get("fqn"), []).append(piece)
        for name, entry in metadata.get("state_dict_metadata").items():
            if entry.get("size") is not None:
                dtype = entry.get("properties").state[0]
                if dtype not in DTYPES:
                    raise ValueError(f"{dtype!r} is no type of a tensor")
                shape = tuple(map(_number, entry.get("size")))
                yield name, StoredTensor(shape=shape, dtype=dtype, pieces=tuple(pieces[name]))
    except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
        raise CheckpointUnsupported(f"{NAME} is of a kind that is not known: {error}.") from error


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _file_name(value: object) -> str:
    if not isinstance(value, str) or Path(value).is_absolute() or ".." in Path(value).parts:
        raise ValueError(f"{value!r} is no file beside it")
    return value
