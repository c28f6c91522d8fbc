"""Pickles of arrays and plain values, read without running anything that is in them.

A pickle is a program. Ours may name only what stands in `ALLOWED`, and behind each name is a
class of this file, not numpy's: what numpy would do with a forged state never happens.
"""

import gzip
import pickle
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from asyncval.core.errors import InvalidData
from asyncval.data.files import open_binary

PLAIN_KINDS = "biufSU"
"""Numbers, bytes and text: the kinds of array whose bytes are all that they are."""
BROKEN = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    UnicodeError,
    ValueError,
    OSError,
    zlib.error,
)
"""What the standard unpickler raises for a file that is damaged or was made to harm."""


def read_pickle(path: Path) -> Any:  # noqa: ANN401
    """Return the plain values and numpy arrays that a pickle has; it may be gzipped.

    Raises:
        InvalidData: It has something else in it, of which nothing was run, or is damaged.
    """
    with open_binary(path) as file:
        try:
            return _plain(_Unpickler(file, path).load())
        except BROKEN as error:
            reason = str(error) or type(error).__name__
            raise InvalidData(f"{str(path)!r} cannot be read as a pickle: {reason}.") from error


def is_pickle(path: Path) -> bool:
    """Return whether a file begins as a binary pickle does, unpacked if it is gzipped."""
    with open_binary(path) as file:
        try:
            return file.read(1) == pickle.PROTO
        except (OSError, EOFError, zlib.error, gzip.BadGzipFile):
            return False


class _Unpickler(pickle._Unpickler):  # the one in Python: that in C takes memory as it is told
    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """Return what stands for a name in the pickle."""
        known = ALLOWED.get(f"{module}.{name}")
        if known is None:
            raise InvalidData(
                f"{str(self._path)!r} is a pickle that wants to use {module}.{name}, which is no "
                "array and no plain value. It was not run; do not open it with anything else."
            )
        return known()

    def persistent_load(self, pid: object) -> Any:  # noqa: ANN401
        """Refuse references to what is not in the file."""
        raise pickle.UnpicklingError(f"it refers to {pid!r}, which is not in it")


class _Piece:
    """Something that a pickle may name; it can be called, and has no state to be overwritten."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it gives a state to what has none")


class _Type(_Piece):
    """A type that is passed on and never made, such as `numpy.ndarray`."""

    __slots__ = ()


class _Dtype:
    """The type of an array's elements."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        dtype = np.dtype(code)
        if dtype.kind not in PLAIN_KINDS or dtype.names or dtype.subdtype:
            raise pickle.UnpicklingError(f"an array of {code!r} is none of numbers or text")
        self.dtype = dtype

    def __setstate__(self, state: Sequence[Any]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"{order!r} is no order of bytes")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array that is being put together from its shape, its type and its bytes."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = np.empty(0, dtype=np.float32)

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.value = _to_array(content, dtype, shape, "F" if is_fortran else "C")


def _to_array(content: Any, dtype: _Dtype, shape: Sequence[int], order: str) -> Any:  # noqa: ANN401
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("an array in it has no bytes")
    shape = tuple(shape)
    if len(content) != prod(shape) * dtype.dtype.itemsize or any(size < 0 for size in shape):
        raise pickle.UnpicklingError(
            f"an array of the shape {shape} and {dtype.dtype} cannot have {len(content)} bytes"
        )
    return np.frombuffer(content, dtype=dtype.dtype).reshape(shape, order=cast(Any, order))


class _MakeDtype(_Piece):
    __slots__ = ()

    def __call__(self, code: str, *_: object) -> _Dtype:
        return _Dtype(code)


class _MakeArray(_Piece):
    __slots__ = ()

    def __call__(self, kind: object, shape: Sequence[int], dtype: object) -> _Array:
        return _Array()


class _ArrayOfBuffer(_Piece):
    __slots__ = ()

    def __call__(
        self, content: bytes, dtype: _Dtype, shape: Sequence[int], order: str = "C"
    ) -> _Array:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", content))
        return array


class _Scalar(_Piece):
    __slots__ = ()

    def __call__(self, dtype: _Dtype, content: bytes) -> Any:  # noqa: ANN401
        return _to_array(content, dtype, (), "C").item()


class _OldBytes(_Piece):
    """Bytes in a pickle of before protocol 3: text, of which each letter is a byte."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"it has bytes that are encoded as {encoding!r}")
        return text.encode("latin-1")


class _Mapping(_Piece):
    __slots__ = ()

    def __call__(self, *_: object) -> dict[Any, Any]:
        return {}


ALLOWED: Mapping[str, Callable[[], object]] = {
    "numpy.ndarray": _Type,
    "numpy.dtype": _MakeDtype,
    "numpy.core.multiarray._reconstruct": _MakeArray,
    "numpy._core.multiarray._reconstruct": _MakeArray,
    "numpy.core.multiarray.scalar": _Scalar,
    "numpy._core.multiarray.scalar": _Scalar,
    "numpy.core.numeric._frombuffer": _ArrayOfBuffer,
    "numpy._core.numeric._frombuffer": _ArrayOfBuffer,
    "_codecs.encode": _OldBytes,
    "collections.OrderedDict": _Mapping,
    "collections.defaultdict": _Mapping,
    "builtins.dict": _Type,
    "builtins.list": _Type,
    "builtins.float": _Type,
    "builtins.int": _Type,
    "__builtin__.dict": _Type,
    "__builtin__.list": _Type,
}
"""Names that a pickle may use, and what stands for each."""


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Put finished arrays in the place of the pieces, in what is not deeper than it need be."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, tuple):
        return tuple(_plain(each) for each in value)
    if isinstance(value, list) and any(isinstance(each, _Array) for each in value):
        return [_plain(each) for each in value]
    return value
