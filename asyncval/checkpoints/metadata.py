"""The `.metadata` of a distributed checkpoint of torch: which tensor lies where in which file.

It is a pickle. Only its own few classes are known here, each as a plain record, so reading it
runs nothing and needs no torch. The format is that of `torch.distributed.checkpoint`'s
`FileSystemWriter`: `Metadata(state_dict_metadata, storage_data, ...)`.
"""

import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from asyncval.core.errors import CheckpointBlocked, CheckpointIncomplete, CheckpointUnsupported

NAME = ".metadata"
PACKAGE = "torch.distributed.checkpoint."
PLAIN: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch", "Size"): tuple,
    ("torch.serialization", "_get_layout"): str,
    ("pathlib", "PosixPath"): PurePosixPath,
    ("pathlib._local", "PosixPath"): PurePosixPath,
    ("collections", "OrderedDict"): dict,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "set"): set,
}
DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "bool"),
    *("int64", "int32", "int16", "int8", "uint8", "complex64", "complex128"),
)


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
    """Whatever the pickle says of an object of a known class, without that class."""

    def __new__(cls, *arguments: Any) -> "_Record":  # noqa: ANN401
        self = super().__new__(cls)
        self.__dict__["arguments"] = arguments
        return self

    def __setstate__(self, state: Any) -> None:  # noqa: ANN401
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) in PLAIN:
            return PLAIN[module, name]
        if module.startswith(PACKAGE):
            return _Record
        if module == "torch" and name in DTYPES:
            return name  # it stands for itself and is not called
        raise CheckpointUnsupported(f"{NAME} wants {module}.{name}, which no checkpoint needs.")


def read_metadata(path: Path) -> dict[str, StoredTensor]:
    """Return every tensor by its name; what is no tensor is left out.

    Raises:
        CheckpointIncomplete: The file is not there or not whole.
        CheckpointUnsupported: It is no such file, or its tensors are compressed.
    """
    try:
        with path.open("rb") as file:
            metadata = _unpickle(file)
            return dict(_tensors(metadata))
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


def _tensors(metadata: Any) -> Any:  # noqa: ANN401
    try:
        pieces: dict[str, list[Piece]] = {}
        for index, place in metadata.storage_data.items():
            if getattr(place, "transform_descriptors", None):
                raise CheckpointUnsupported(f"{NAME} has compressed tensors: not supported.")
            pieces.setdefault(index.fqn, []).append(
                Piece(
                    file=place.relative_path,
                    offset=place.offset,
                    length=place.length,
                    start=tuple(getattr(index, "offset", None) or ()),
                )
            )
        for name, entry in metadata.state_dict_metadata.items():
            if hasattr(entry, "size"):
                yield (
                    name,
                    StoredTensor(
                        shape=tuple(entry.size),
                        dtype=str(entry.properties.state[0]),
                        pieces=tuple(pieces[name]),
                    ),
                )
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise CheckpointUnsupported(f"{NAME} is of a kind that is not known: {error}.") from error
