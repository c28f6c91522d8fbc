"""What other programs may use of Asyncval; `trainer` uses nothing else.

    encoder = TextEncoder(Path("out/checkpoint-500"), EncodingConfig(q_max_len=64))
    queries = encoder.tokenize([Path("queries.jsonl")], is_query=True)
    passages = encoder.tokenize([Path("corpus.tsv")], is_query=False)
    top = TopK(encoder.encode(queries, is_query=True), depth=100)
    top.add(encoder.encode(passages, is_query=False), first=0)
    scores, positions = in_trec_order(
        *top.answers(), passage_ids=passages.text_ids, depth=100
    )

It has no logic of its own: it names what there is, and puts together what belongs together.
Whatever is wrong with what it is given raises an `AsyncvalError`, whose text is one or two
sentences for the user. Axes: N texts, Q queries, P passages, D dimensions, K depth.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.checkpoints.loading import max_positions
from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.commands.preparation import asked_dtype, check_encoding, check_texts, device_name
from asyncval.config import EncodingConfig, TextConfig
from asyncval.core.errors import AsyncvalError, CheckpointError, InvalidData, InvalidOption
from asyncval.core.measures import parse_measures
from asyncval.core.ranking import in_trec_order
from asyncval.core.sampling import Rankings
from asyncval.core.types import Checkpoint, Judgements, QuerySet, Record, Retrieved, Text, TextForm
from asyncval.data.embeddings import read_embeddings, read_scores
from asyncval.data.qrels import judged_pairs, read_qrels
from asyncval.data.runs import read_run, write_run
from asyncval.data.sources import digest_of, passage_files, read_texts
from asyncval.data.texts import check_form, content_of, record_id
from asyncval.data.tsv import fields_of, header_of
from asyncval.evaluation import resolve_device, resolve_precision, tame_libraries
from asyncval.execution.local import device_environment
from asyncval.outputs import run_lines
from asyncval.retrieval.encode import Encoding, encode
from asyncval.retrieval.score import Scorer
from asyncval.retrieval.search import TopK
from asyncval.retrieval.texts import load_tokenizers, load_tokens
from asyncval.retrieval.tokens import TextIds, TokenCache, TokenStore

__all__ = [
    "AsyncvalError",
    "CheckpointError",
    "EncodingConfig",
    "InvalidData",
    "InvalidOption",
    "Judgements",
    "Rankings",
    "Record",
    "Retrieved",
    "Text",
    "TextConfig",
    "TextEncoder",
    "TextForm",
    "TextIds",
    "TokenStore",
    "TopK",
    "check_encoding",
    "check_form",
    "check_texts",
    "content_of",
    "device_name",
    "digest_of",
    "fields_of",
    "header_of",
    "in_trec_order",
    "judged_pairs",
    "max_positions",
    "mean_measures",
    "passage_files",
    "read_embeddings",
    "read_qrels",
    "read_run",
    "read_scores",
    "read_texts",
    "record_id",
    "run_lines",
    "write_run",
]


class TextEncoder:
    """A checkpoint on one device, which makes of texts the vectors that a validation makes.

    The device is claimed for the whole process, and the network is left alone: make it before
    torch is imported.

    Args:
        checkpoint: The folder of a whole checkpoint of any layout.
        config: Lengths, prefixes, pooling, precision, cache: the options of `asyncval eval`.
        device: `cpu`, `cuda:N`, `N`, or `auto` for the first GPU, else the CPU.

    Raises:
        CheckpointError: It is not whole, or cannot be loaded.
        UsageError: The device is not there, or an option cannot be used.
    """

    def __init__(self, checkpoint: Path, config: EncodingConfig, *, device: str = "auto") -> None:
        os.environ.update(device_environment(device_name(device)))
        tame_libraries()
        found = Checkpoint(path=checkpoint.absolute(), step=None, layout="")
        whole = examine(Folder.listing(found.path), step=None, layout_name=config.layout)
        self.fingerprint = fingerprint(found.path, whole.model_files)
        self.device = resolve_device(device)
        self.precision, note = resolve_precision(self.device, asked_dtype(config))
        self._options = config.encoder_options()
        self._loaded = load_checkpoint(
            found, self._options, device=self.device, precision=self.precision
        )
        self._tokenizers = load_tokenizers(self._loaded, self._options, name=found.name)
        self._cache = TokenCache(config.cache_dir, max_bytes=config.cache_max_bytes)
        limits = (self._loaded.queries.max_length, self._loaded.passages.max_length)
        self._encoding = Encoding(
            device=self.device,
            precision=self.precision,
            batch_size=config.per_device_eval_batch_size,
            longest=min((each for each in limits if each is not None), default=None),
        )
        self.remarks = (*self._loaded.assumed, *([note] if note else []))

    def tokenize(
        self,
        files: Sequence[Path],
        *,
        is_query: bool,
        form: TextForm | None = None,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> TokenStore:
        """Return the tokens of all texts in some files, in order, from the cache where it can.

        Args:
            files: Queries, or passages as `passage_files` gives them.
            is_query: Whether they are queries, else passages.
            form: How they are to be read, where that cannot be told by the files.
            on_progress: Told how many texts are done.
        """
        wanted = form or TextForm(is_query=is_query)
        option = "--query_file" if is_query else "--candidate_dir"

        def texts() -> Iterator[Text]:
            return chain.from_iterable(
                read_texts(file, option=option, form=wanted) for file in files
            )

        store, remarks = load_tokens(
            self._loaded,
            self._tokenizers,
            options=replace(
                self._options, query_template=wanted.template, doc_template=wanted.template
            ),
            cache=self._cache,
            content=digest_of(files, wanted),
            texts=texts,
            is_query=is_query,
            on_progress=on_progress,
        )
        self.remarks = tuple(dict.fromkeys([*self.remarks, *remarks]))
        return store

    def plan(self, tokens: TokenStore) -> Iterator[list[NDArray[np.int64]]]:
        """Yield the batches of each portion of the texts: a batch is an array of their rows.

        What `encode` makes of `tokens.take` with the rows of some batches of one portion, in
        their order, is what it makes of them among all others, to the last bit.
        """
        for texts in self._encoding.portions(len(tokens)):
            batches = self._encoding.batches(tokens[texts].lengths)
            yield [texts.start + batch.rows for batch in batches]

    def encode(
        self,
        tokens: TokenStore,
        *,
        is_query: bool,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> NDArray[np.float32]:
        """Return the vectors of all texts, float32 [N, D], in the order of `tokens`.

        Args:
            tokens: One text or more.
            is_query: Whether they are queries, else passages.
            on_progress: Told how many texts are done.

        Raises:
            CheckpointBroken: A vector has a value that is not a finite number.
        """
        towers = self._loaded.encoder
        forward = towers.encode_queries if is_query else towers.encode_passages
        return encode(tokens, forward, encoding=self._encoding, on_progress=on_progress)


def mean_measures(
    metrics: Sequence[str],
    *,
    judgements: Judgements,
    query_ids: Sequence[str],
    positions: NDArray[np.int64],
    passage_ids: Sequence[str],
) -> dict[str, float]:
    """Return the mean of each measure over the judged queries, as a validation has it.

    Args:
        metrics: Measures, as ir_measures spells them: RR@10, nDCG@10, R@100.
        judgements: What is relevant.
        query_ids: [Q] ids of all queries that were searched.
        positions: [Q, K] rows of `passage_ids` that were found, best first, without pads.
        passage_ids: [P] ids.

    Raises:
        InvalidOption: A measure is not known.
        InvalidData: No query is judged.
    """
    queries = tuple(Text(id=each, text="") for each in query_ids)
    query_set = QuerySet(
        name="", path=Path(), qrels_path=Path(), queries=queries, judgements=judgements
    )
    if not query_set.judged:
        raise InvalidData(f"None of the {len(queries)} queries is judged.")
    scorer = Scorer(query_set, passage_ids=passage_ids, measures=parse_measures(metrics))
    return {name: float(values.mean()) for name, values in scorer.score(positions).items()}
