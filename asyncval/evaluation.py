"""Evaluating checkpoints in this process: what a worker does, and `asyncval eval`."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from asyncval.checkpoints.completeness import SENTINEL, examine
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import first_line
from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.clock import SystemClock
from asyncval.core.discovery import step_in_name
from asyncval.core.errors import CheckpointError, DataChanged, DeviceUnavailable, UsageError
from asyncval.core.measures import parse_measures
from asyncval.core.ports import Encoder, ProgressListener
from asyncval.core.types import (
    Checkpoint,
    Dtype,
    LoadedCheckpoint,
    Precision,
    Progress,
    Reading,
    Result,
    State,
    Text,
    TextForm,
    Validation,
    WriteRun,
)
from asyncval.data.collection import TaskPlaces, load_query_sets, read_passages
from asyncval.data.sources import digest_of
from asyncval.execution.messages import CorpusSetup, WorkerSetup
from asyncval.outputs import write_outputs
from asyncval.retrieval.encode import Encoding
from asyncval.retrieval.heap import bound_caches, share_one_heap
from asyncval.retrieval.search import check_backend
from asyncval.retrieval.task import CorpusTexts, Task
from asyncval.retrieval.tokens import TokenCache
from asyncval.retrieval.validate import Validator

logger = logging.getLogger(__name__)
CHANGED = "{}: {} changed after the start. Start again, and everything is validated anew."
HALF_PRECISION_FLAGS = {"amx_bf16", "avx512_bf16"}


class Evaluation:
    """Evaluates one checkpoint after another on one device, and writes what it leaves on disk.

    Args:
        setup: The data and how to evaluate.
        device: `cpu`, `cuda:N` or `auto`; where a GPU is meant, it is the one that is visible.

    Raises:
        UsageError: The device or a library is missing, or the data cannot be read.
    """

    def __init__(self, setup: WorkerSetup, *, device: str) -> None:
        self.device = resolve_device(device)
        check_backend(setup.search_backend, device=self.device, depth=setup.depth)
        self.precision, self.note = resolve_precision(self.device, setup.dtype)
        self.layout = setup.options.layout
        self._setup = setup
        self._validator = self._make_validator()

    def _make_validator(self) -> Validator:
        setup = self._setup
        tasks = [
            TaskPlaces(name=name, queries=Path(queries), qrels=Path(qrels), candidates=())
            for name, queries, qrels in zip(
                setup.query_names, setup.query_files, setup.qrel_files, strict=True
            )
        ]
        query_sets = load_query_sets(tasks, form=setup.query_form)
        if [each.digest for each in query_sets] != [*setup.query_digests]:
            raise DataChanged(CHANGED.format("--query_file", ", ".join(setup.query_files)))
        if [digest_of([Path(path)]) for path in setup.qrel_files] != [*setup.qrel_digests]:
            raise DataChanged(CHANGED.format("--qrel_file", ", ".join(setup.qrel_files)))
        return Validator(
            Task(
                query_sets=[
                    replace(query_set, corpus=corpus)
                    for query_set, corpus in zip(query_sets, setup.query_corpora, strict=True)
                ],
                query_digests=setup.query_digests,
                corpora={
                    name: CorpusTexts(
                        digest=corpus.digest,
                        passages=partial(_passages, corpus, form=setup.passage_form),
                    )
                    for name, corpus in setup.corpora.items()
                },
                measures=parse_measures(setup.measures),
                depth=setup.depth,
                options=setup.options,
                queries_at_once=setup.queries_at_once,
                search_backend=setup.search_backend,
                keep_vectors=setup.write_embeddings,
            ),
            load=lambda checkpoint: load_checkpoint(
                checkpoint, setup.options, device=self.device, precision=self.precision
            ),
            encoding=Encoding(
                device=self.device, precision=self.precision, batch_size=setup.batch_size
            ),
            cache=TokenCache(Path(setup.cache_dir), max_bytes=setup.cache_max_bytes),
            clock=SystemClock(),
        )

    def tokenize(
        self, path: Path | None, *, listener: ProgressListener = lambda progress: None
    ) -> int:
        """Tokenise all texts as the checkpoint in this folder wants them; return their number.

        Without a checkpoint, they are read as one that says nothing of them wants them, with
        the tokenizer that was asked for.
        """
        options = self._setup.options
        if path is None:
            readings = [
                Reading(tokenizer_folder=None, prefix=prefix or "", append_eos=bool(eos))
                for prefix, eos in (
                    (options.query_prefix, options.append_eos),
                    (options.passage_prefix, options.append_eos),
                )
            ]
            loaded = LoadedCheckpoint(
                encoder=cast(Encoder, None), queries=readings[0], passages=readings[1]
            )
        else:
            loaded = load_checkpoint(
                Checkpoint(path=path.absolute(), step=None, layout=""),
                options,
                device="cpu",
                precision="fp32",
            )
        name = path.name if path else "nothing"
        return self._validator.tokenize(loaded, name=name, listener=listener)

    def run(
        self,
        checkpoint: Checkpoint,
        *,
        listener: ProgressListener = lambda progress: None,
        shrink: int = 0,
        dimension: int | None = None,
    ) -> Result:
        """Validate a checkpoint and write its run files and whatever else was asked for.

        Raises:
            CheckpointError: It cannot be evaluated, or its numbers could not be trusted.
        """
        outcome = self._validator.validate(
            checkpoint, listener=listener, shrink=shrink, dimension=dimension
        )
        setup = self._setup
        if setup.output_dir is None:
            return outcome.result
        clock = SystemClock()
        start = clock.monotonic()
        write_outputs(
            outcome,
            Path(setup.output_dir),
            name=checkpoint.name,
            runs=cast(WriteRun, setup.write_run),
            embeddings=setup.write_embeddings,
        )
        return _with_phase(outcome.result, "write", clock.monotonic() - start)


def _passages(corpus: CorpusSetup, *, form: TextForm) -> Iterator[Text]:
    """Yield the passages of a corpus that is still the one that it was when it was checked."""
    files = list(map(Path, corpus.files))
    yield from read_passages(files, form=form)
    if digest_of(files, form) != corpus.digest:
        raise DataChanged(CHANGED.format("--candidate_dir", ", ".join(corpus.files)))


def _with_phase(result: Result, name: str, seconds: float) -> Result:
    """Return a result that took so much longer."""
    before = dict(result.seconds)
    total = before.pop("total") + seconds
    return replace(result, seconds={**before, name: seconds, "total": total})


def resolve_device(name: str) -> str:
    """Return the device's name in this process, where at most one CUDA device is visible.

    Raises:
        DeviceUnavailable: It is not there.
    """
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise DeviceUnavailable(
            f"--devices: {name} is not there: this machine has no usable CUDA device. Give cpu."
        )
    return "cuda:0"


def resolve_precision(device: str, dtype: Dtype) -> tuple[Precision, str]:
    """Return the precision to run in, and what to say where it is not the one asked for."""
    if dtype == "fp32":
        return "fp32", ""
    if device != "cpu":
        return _best_of_cuda() if dtype == "auto" else dtype, ""
    if dtype != "fp16" and HALF_PRECISION_FLAGS & set(_cpu_flags()):
        return "bf16", ""
    if dtype == "auto":
        return "fp32", ""
    return "fp32", f"--dtype {dtype}: this CPU has no good {dtype}, so everything runs in fp32."


def _best_of_cuda() -> Precision:
    import torch

    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _cpu_flags() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return next((line.split() for line in lines if line.startswith("flags")), [])


def evaluate_all(
    paths: Sequence[Path],
    evaluation: Evaluation,
    *,
    listener: Callable[[str, Progress], None],
) -> list[Validation]:
    """Validate checkpoint folders one after another; return a row for each, in the order given."""
    clock = SystemClock()
    rows = []
    for number, path in enumerate(paths):
        checkpoint = Checkpoint(path=path.absolute(), step=_step(path), layout="")
        state, reason, result = State.DONE, "", None
        try:
            examine(Folder.listing(path), step=None, layout_name=evaluation.layout)
            result = evaluation.run(checkpoint, listener=partial(listener, path.name))
        except CheckpointError as error:
            state, reason = State.FAILED, str(error)
        except UsageError:
            raise
        except Exception as error:  # it costs this checkpoint, not the results of the others
            logger.exception("%s failed.", path.name)
            state, reason = State.FAILED, f"{type(error).__name__}: {first_line(error)}"
        now = clock.now()
        rows.append(
            Validation(
                id=number,
                checkpoint=checkpoint,
                state=state,
                reason=reason,
                found_at=now,
                finished_at=now,
                result=result,
            )
        )
    return rows


def _step(path: Path) -> int | None:
    """Return the step that the name tells, or the trainer's own state, or None."""
    step = step_in_name(path.name)
    if step is not None:
        return step
    try:
        recorded = Folder.listing(path).read_json(SENTINEL)["global_step"]
    except (CheckpointError, KeyError, TypeError):
        return None
    return recorded if isinstance(recorded, int) else None


def tame_libraries() -> None:
    """Keep the libraries off the network and the terminal, and small; before any import."""
    share_one_heap()
    bound_caches()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    for name in ("faiss", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
