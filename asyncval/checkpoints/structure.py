"""Is a file whole? Found out without loading it, and without mapping it into memory.

A half-written weight file often loads and gives wrong numbers, and a file that shrinks
under a memory map kills the process, so every model file is checked by its structure first.
"""

import json
import math
import os
import zipfile
from pathlib import Path
from typing import Any

from asyncval.checkpoints import metadata
from asyncval.core.errors import CheckpointBlocked, CheckpointIncomplete

LEGACY = b"\x80\x02"  # a pickle, as torch wrote before version 1.6
MAX_HEADER_BYTES = 100_000_000
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16,
    "BF16": 16, "I16": 16, "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8,
    "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


def check_file(path: Path) -> None:
    """Check one file by its kind: safetensors, a zip of torch, an index of shards, JSON.

    `.metadata` of a distributed checkpoint stands for all of its files.

    Files of other kinds pass.

    Raises:
        CheckpointIncomplete: The file is not whole; the message has its name and the reason.
    """
    if path.suffix == ".safetensors":
        check_safetensors(path)
    elif path.suffix in (".bin", ".pt"):
        check_torch_zip(path)
    elif path.name.endswith(".index.json"):
        check_index(path)
    elif path.suffix == ".json":
        _read_json(path)
    elif path.name == metadata.NAME:
        check_distributed(path)


def check_safetensors(path: Path) -> dict[str, Any]:
    """Check a safetensors file and return its header, tensor name to entry.

    The format is 8 bytes with the header's length, little-endian; the header in JSON; the
    data, without gaps (https://github.com/huggingface/safetensors, "Format").
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise CheckpointIncomplete(f"{path.name} has no whole header yet ({size} bytes).")
        try:
            header = json.loads(file.read(length))
            tensors = {name: each for name, each in header.items() if name != "__metadata__"}
            end = _data_bytes(tensors)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointIncomplete(f"{path.name} has a damaged header: {error}.") from error
        if not tensors:
            raise CheckpointIncomplete(f"{path.name} has no tensor in it.")
        if size != 8 + length + end:
            raise CheckpointIncomplete(
                f"{path.name} has {size} bytes where its header announces {8 + length + end}."
            )
        if _has_hole(file.fileno(), size):
            raise CheckpointIncomplete(f"{path.name} has parts that were never written.")
    return tensors


def _data_bytes(tensors: dict[str, Any]) -> int:
    """Return where the data ends; raise ValueError where the entries leave gaps or disagree."""
    end = 0
    for entry in sorted(tensors.values(), key=lambda each: each["data_offsets"]):
        start, stop = entry["data_offsets"]
        bits = math.prod(entry["shape"]) * BITS.get(entry["dtype"], 0)
        if start != end or (bits and stop - start != bits // 8):
            raise ValueError("tensor offsets do not fit together")
        end = stop
    return end


def _has_hole(descriptor: int, size: int) -> bool:
    """Say whether a file was stretched to its size without being filled.

    safetensors 0.8 makes room for the whole file before it writes. Where a file system
    does not know holes, the end of the file is the only one.
    """
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE) < size
    except OSError:
        return False
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)


def check_torch_zip(path: Path) -> None:
    """Check a file of `torch.save`: a zip whose members all lie before its directory.

    The format before torch 1.6 has no end that could be checked; it passes.
    """
    with _opened(path) as file:
        start = file.read(4)
        if start[:2] == LEGACY and len(start) == 4:
            return
        if start != b"PK\x03\x04":
            raise CheckpointIncomplete(f"{path.name} is not a whole file of torch.save.")
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                first = min(member.header_offset for member in members)
                whole = first == 0 and any(m.filename.endswith("data.pkl") for m in members)
        # zipfile says of a damaged directory also that it is of a version not implemented.
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise CheckpointIncomplete(f"{path.name} is not whole: {error}.") from error
        if not whole:
            raise CheckpointIncomplete(f"{path.name} is not a whole file of torch.save.")


def check_index(path: Path) -> None:
    """Check an index of shards: every shard is there, whole, and has the tensors it should."""
    weight_map = read_weight_map(path)
    for shard in sorted(set(weight_map.values())):
        place = path.parent / shard
        if place.suffix != ".safetensors":
            check_file(place)
            continue
        lacking = {name for name, file in weight_map.items() if file == shard}
        lacking -= check_safetensors(place).keys()
        if lacking:
            raise CheckpointIncomplete(
                f"{shard} lacks {len(lacking)} tensors that {path.name} expects in it, for "
                f"example {min(lacking)!r}."
            )


def check_distributed(path: Path) -> None:
    """Check a distributed checkpoint: each file reaches as far as its `.metadata` says."""
    ends: dict[str, int] = {}
    for tensor in metadata.read_metadata(path).values():
        for piece in tensor.pieces:
            ends[piece.file] = max(ends.get(piece.file, 0), piece.offset + piece.length)
    if not ends:
        raise CheckpointIncomplete(f"{path.name} has no tensor in it.")
    for name, end in ends.items():
        with _opened(path.parent / name) as file:
            size = os.fstat(file.fileno()).st_size
            if size < end:
                raise CheckpointIncomplete(
                    f"{name} has {size} bytes where {path.name} announces {end}."
                )
            if _has_hole(file.fileno(), size):
                raise CheckpointIncomplete(f"{name} has parts that were never written.")


def read_weight_map(path: Path) -> dict[str, str]:
    """Return an index's map of tensor name to shard file."""
    index = _read_json(path)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointIncomplete(f'{path.name} has no "weight_map".')
    if not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointIncomplete(f"{path.name} names a shard that is no text.")
    return weight_map


def _read_json(path: Path) -> Any:  # noqa: ANN401
    with _opened(path) as file:
        try:
            return json.loads(file.read())
        except (ValueError, RecursionError) as error:
            raise CheckpointIncomplete(f"{path.name} is not whole JSON: {error}.") from error


def _opened(path: Path) -> Any:  # noqa: ANN401
    try:
        return path.open("rb")
    except PermissionError as error:
        raise CheckpointBlocked.at(path) from error
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CheckpointIncomplete(f"{path.name} cannot be read: {error.strerror}.") from error
