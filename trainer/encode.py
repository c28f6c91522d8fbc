"""Write the vectors of queries or of a corpus, in shards.

A shard is every n-th batch of the plan for the whole corpus. Whatever the number of shards, a
text stands in the same batch, so its vector is the same to the last bit, and each shard has its
part of the long texts.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from asyncval.api import (
    CheckpointError,
    EncodingConfig,
    TextConfig,
    TextEncoder,
    TextForm,
    TokenStore,
    check_encoding,
    check_texts,
    digest_of,
    passage_files,
)
from trainer.errors import InputError
from trainer.flags import Flag, log_to_stderr, parse
from trainer.shards import Shard

logger = logging.getLogger("trainer")


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(EncodingConfig, TextConfig):
    """Write the vectors of queries or of a corpus, in a form that `search` reads."""

    model_name_or_path: Path
    """The folder of a checkpoint, of any kind that `asyncval eval` reads."""
    encoded_save_path: Path
    """The folder that gets the vectors."""
    query_file: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")] = ()
    """The queries to encode, or passages, or both. Queries are one shard, the work of shard 0."""
    candidate_dir: Annotated[
        tuple[Path, ...], tyro.conf.arg(aliases=["--encode_in_path"], metavar="PATH...")
    ] = ()
    """The passages to encode: a folder, or files."""
    encode_num_shard: int = 1
    """How many shards the passages have in all."""
    encode_shard_index: int = 0
    """Which of them to write, from 0."""
    devices: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DEVICE...")] = ("auto",)
    """Where to run: cpu, 0 or cuda:0. N of them write N shards of N times as many."""
    overwrite: Flag = False
    """Write anew what is there already."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.query_file and not self.candidate_dir:
            raise InputError("Give --query_file or --candidate_dir, or both.")
        check_texts(self)
        check_encoding(self)
        if not 0 <= self.encode_shard_index < self.encode_num_shard:
            raise InputError(
                f"--encode_shard_index is {self.encode_shard_index}. With --encode_num_shard "
                f"{self.encode_num_shard} it must be from 0 to {self.encode_num_shard - 1}."
            )


def main(flags: Sequence[str]) -> None:
    """Encode on one device, or on several with a process and a shard each."""
    config = parse(EncodeConfig, flags, command="encode")
    log_to_stderr()
    several = len(config.devices) if config.candidate_dir else 1
    first, num = config.encode_shard_index * several, config.encode_num_shard * several
    if several == 1:
        encode_on(config.devices[0], config, first, num)
        return
    with ProcessPoolExecutor(several, get_context("spawn"), initializer=log_to_stderr) as pool:
        running = [
            pool.submit(encode_on, device, config, first + place, num)
            for place, device in enumerate(config.devices)
        ]
        for each in running:
            each.result()


def encode_on(device: str, config: EncodeConfig, index: int, num: int) -> None:
    """Write shard `index` of `num` of the passages; the first has the queries too."""
    encoder = load_encoder(config.model_name_or_path, config, device=device)
    folder = config.encoded_save_path
    if config.query_file and index == 0:
        queries = Shard(folder=folder, side="queries", index=0, num=1)
        encode_shard(queries, encoder, config, config.query_file, form=config.query_form())
    if config.candidate_dir:
        passages = Shard(folder=folder, side="passages", index=index, num=num)
        form = config.passage_form()
        files = passage_files(config.candidate_dir, form=form)
        encode_shard(passages, encoder, config, files, form=form)


def encode_shard(
    shard: Shard,
    encoder: TextEncoder,
    config: EncodeConfig,
    files: Sequence[Path],
    *,
    form: TextForm,
) -> None:
    """Write one shard, if it is not there already."""
    side, index, num = shard.side, shard.index, shard.num
    is_query = side == "queries"
    origin = {
        "model": encoder.fingerprint,
        "texts": digest_of(files, form),
        "precision": encoder.precision,
        **{key: str(value) for key, value in asdict(config.encoder_options()).items()},
    }
    if not config.overwrite and shard.is_there(origin):
        logger.info("%s is there already.", shard.vectors)
        return
    tokens = tokenize(encoder, files, is_query=is_query, form=form)
    portions = rows_of_shard(encoder, tokens, index, num)
    if not portions:
        raise InputError(
            f"Shard {index} of {num} has nothing to do: there are only {len(tokens)} {side}. Use "
            "fewer shards and devices."
        )
    rows = np.sort(np.concatenate(portions))
    logger.info(
        "Encoding %d of %d %s on %s in %s.",
        len(rows), len(tokens), side, encoder.device, encoder.precision,
    )  # fmt: skip

    def vectors() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        done = 0
        for some in portions:
            yield np.searchsorted(rows, some), encoder.encode(tokens.take(some), is_query=is_query)
            done += len(some)
            logger.info("%d of %d %s are encoded.", done, len(rows), side)

    shard.write([*tokens.text_ids.take(rows)], vectors(), origin=origin)
    logger.info("%s is written.", shard.vectors)


def rows_of_shard(
    encoder: TextEncoder, tokens: TokenStore, index: int, num: int
) -> list[NDArray[np.int64]]:
    """Return the rows of the texts of one shard: of each portion every `num`-th batch."""
    plan = (batches[index::num] for batches in encoder.plan(tokens))
    return [np.concatenate(batches) for batches in plan if batches]


def load_encoder(checkpoint: Path, config: EncodingConfig, *, device: str) -> TextEncoder:
    """Load a checkpoint, and say what is assumed of it, or say which one cannot be."""
    if not checkpoint.is_dir():
        raise InputError(
            f"--model_name_or_path: there is no folder {str(checkpoint)!r}. Give a checkpoint."
        )
    try:
        encoder = TextEncoder(checkpoint, config, device=device)
    except CheckpointError as error:
        raise InputError(f"--model_name_or_path {str(checkpoint)!r}: {error}") from error
    for remark in encoder.remarks:
        logger.warning(remark)
    return encoder


def tokenize(
    encoder: TextEncoder, files: Sequence[Path], *, is_query: bool, form: TextForm
) -> TokenStore:
    """Return the tokens of all texts, and say what is new of them."""
    before = encoder.remarks
    tokens = encoder.tokenize(files, is_query=is_query, form=form)
    for remark in encoder.remarks[len(before) :]:
        logger.warning(remark)
    return tokens
