"""The options of every command: each is said once, here.

A field is the flag, the key in a configuration file, its default, its help and its type.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from asyncval.core.types import (
    Dtype,
    EncoderOptions,
    PinMethod,
    Pooling,
    RunType,
    SearchBackend,
    Similarity,
    TextForm,
    WriteRun,
)

MaybeText = Annotated[str | None, tyro.conf.arg(metavar="TEXT")]
MaybeInt = Annotated[int | None, tyro.conf.arg(metavar="N")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def default_cache_dir() -> Path:
    """Return where caches go on this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asyncval"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How queries and passages are read."""

    text_format: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ("auto",)
    """jsonl, tsv, parquet, datasets, ir_datasets or package.module:Name of your own; one for all
    texts, or one for queries and one for passages. Default: by the file."""
    query_column_names: Annotated[str | None, tyro.conf.arg(metavar="ID,TEXT")] = None
    """The columns of TSV queries. Default: id,text or id,title,text, or what the header says."""
    doc_column_names: Annotated[str | None, tyro.conf.arg(metavar="ID,TITLE,TEXT")] = None
    """The columns of TSV passages, likewise."""
    query_template: MaybeText = None
    """What is encoded of a query, with <column> for each field, or the name of a preset."""
    doc_template: MaybeText = None
    """What is encoded of a passage, likewise: "Title: <title> Text: <text>". Default: title and
    text with a space between. Presets are named after toolkits (docs/data.md)."""

    def query_form(self) -> TextForm:
        """Return how queries are to be read."""
        return TextForm(
            is_query=True,
            format=self.text_format[0],
            columns=_names(self.query_column_names),
            template=self.query_template,
        )

    def passage_form(self) -> TextForm:
        """Return how passages are to be read."""
        return TextForm(
            format=self.text_format[-1],
            columns=_names(self.doc_column_names),
            template=self.doc_template,
        )


def _names(listed: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",")) if listed is not None else ()


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """One of `tasks` in a configuration file: a query set with a corpus of its own."""

    name: str
    query_file: Path
    candidate_dir: tuple[Path, ...]
    qrel_file: Path


@dataclass(frozen=True, kw_only=True)
class CollectionConfig:
    """What is searched, for what, and what counts as found.

    Places are files, folders, or `ir_datasets:NAME`.
    """

    query_file: Annotated[
        tuple[Path, ...], tyro.conf.arg(aliases=["--query_files"], metavar="FILE...")
    ] = ()
    """Queries: JSON lines, TSV, Parquet ... Several behind one flag are several query sets."""
    candidate_dir: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...")] = ()
    """Passages: a folder, files, or ir_datasets:NAME."""
    qrel_file: Annotated[
        tuple[Path, ...], tyro.conf.arg(aliases=["--qrel_files"], metavar="FILE...")
    ] = ()
    """Judgements: TREC or BEIR columns. One file, or one for each query file."""
    task: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=FOLDER")
    ] = ()
    """Instead of these three: a folder with queries, corpus and qrels, as BEIR's. Repeatable."""
    tasks: Annotated[tuple[TaskEntry, ...], tyro.conf.Suppress] = ()
    """The same in a configuration file: name, query_file, candidate_dir and qrel_file of each."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is said of a checkpoint; where the checkpoint says it too, both must agree."""

    layout: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """What wrote the checkpoints: huggingface, sentence-transformers, tevatron, openmatch ... or
    package.module:Name of your own. Default: by the files."""
    base_model: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """The model that an adapter changes. Default: the folder that the adapter names."""
    tokenizer_name_or_path: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """The tokenizer. Default: the checkpoint's own, else one above it or beside its base model."""
    q_max_len: MaybeInt = None
    """The most tokens of a query, special ones included. Default: what `python -m trainer` wrote
    into the checkpoint, or 32."""
    p_max_len: MaybeInt = None
    """The most tokens of a passage, likewise. Default: what `python -m trainer` wrote, or 128."""
    query_prefix: MaybeText = None
    """Put before every query. Default: what the checkpoint says, or nothing."""
    passage_prefix: MaybeText = None
    """Put before every passage. Default: what the checkpoint says, or nothing."""
    pooling: Pooling | None = None
    """How tokens become one vector. Default: what the checkpoint says, or cls."""
    normalize: Flag = False
    """Bring all vectors to unit length, also where the checkpoint does not say so."""
    similarity: Similarity | None = None
    """Inner product or cosine. Default: what the checkpoint says, or ip."""
    append_eos_token: Flag = False
    """Put the tokenizer's end-of-text token after every text, within its maximum length."""
    trust_remote_code: Flag = False
    """Run model code that comes with a checkpoint. Only for checkpoints that you trust."""

    def encoder_options(self) -> EncoderOptions:
        """Return what these options say of the encoder."""
        return EncoderOptions(
            layout=self.layout,
            base_model=str(self.base_model.absolute()) if self.base_model else None,
            pooling=self.pooling,
            normalize=self.normalize or None,
            similarity=self.similarity,
            append_eos=self.append_eos_token or None,
            query_prefix=self.query_prefix,
            passage_prefix=self.passage_prefix,
            q_max_len=self.q_max_len,
            p_max_len=self.p_max_len,
            tokenizer=self.tokenizer_name_or_path,
            trust_remote_code=self.trust_remote_code,
        )


@dataclass(frozen=True, kw_only=True)
class EncodingConfig(ModelConfig):
    """How texts become vectors, and where the work is kept."""

    per_device_eval_batch_size: MaybeInt = None
    """The most texts in one batch. Default: a budget of tokens alone decides."""
    dtype: Dtype | None = None
    """The precision of the encoder; auto is the fastest that the device has. Default: fp32."""
    fp16: Flag = False
    """The same as --dtype fp16."""
    bf16: Flag = False
    """The same as --dtype bf16."""
    cache_dir: Path = field(default_factory=default_cache_dir)
    """Where tokenised texts are kept for the next checkpoint and the next start."""
    cache_max_bytes: MaybeInt = None
    """The most that they may take; beyond it the longest unused are removed. Default: no limit."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig(EncodingConfig, TextConfig, CollectionConfig):
    """What a validation is: the data, the encoding, the measures."""

    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MEASURE...")] = ("RR@10", "nDCG@10")
    """Measures, as ir_measures spells them: RR@10, nDCG@10, R@100, AP, P@5, Success@5."""
    depth: int = 100
    """How many passages are retrieved for a query."""
    retrieve_batch_size: MaybeInt = None
    """The most queries in one call of the search. Default: all."""
    search_backend: SearchBackend = "auto"
    """What searches, exactly. Default: FAISS, or torch on a GPU where FAISS has no CUDA."""
    write_run: WriteRun = "trec"
    """The form of the run files."""
    write_embeddings: Flag = False
    """Write all vectors and the ids of their rows into `embeddings` in --output_dir."""


@dataclass(frozen=True, kw_only=True)
class WatchConfig(ValidationConfig):
    """Validate every checkpoint in a folder, those there already and those to come."""

    ckpts_dir: Path
    """The folder that the trainer writes its checkpoint folders to."""
    output_dir: Path
    """Where the ledger, the results and the run files go. One daemon per folder."""
    logging_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Where reporters write. Default: `tensorboard` in the output folder."""
    report_to: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ("tensorboard",)
    """Where results are shown: tensorboard, none, or package.module:Name of your own."""
    run_name: str = "asyncval"
    """The name of this run in the reporters; TensorBoard's run directory."""
    devices: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DEVICE...")] = ("auto",)
    """One process each: cpu, 0 or cuda:0. Default: the first GPU, else the CPU."""
    max_num_valid: MaybeInt = None
    """End once there are this many results, those of earlier runs included; not failures."""
    idle_timeout: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """End once nothing new came for so many seconds."""
    until_step: MaybeInt = None
    """End once a checkpoint of this step or a later one has a result, or a reason for none."""
    done_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """End once this file is there and nothing waits."""
    patience: MaybeInt = None
    """Write the file `stop` once so many results in a row were no better than the best."""
    time_limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 14400.0
    """How long one validation may take: then it is ended, and after three times failed."""
    ckpt_pattern: Annotated[str | None, tyro.conf.arg(metavar="REGEX")] = None
    """Names of checkpoint folders; the last group is the step. Default: checkpoint-500, 500 ..."""
    sentinel: str = "trainer_state.json"
    """The file that the trainer writes last."""
    pin: PinMethod = "auto"
    """How checkpoints are kept until they are validated, whatever the trainer deletes: auto is a
    reflink, else a hard link, else a copy; none keeps nothing."""
    max_pinned_bytes: MaybeInt = None
    """The most that these may hold; beyond it the oldest that waits is skipped. Default: all."""
    keep_best: int = 1
    """How many of the best checkpoints are kept for good; `best` is a link to the very best."""
    anchor_every: MaybeInt = None
    """Validate every N-th checkpoint on the full corpus too, when nothing else waits."""
    anchor_candidate_dir: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...")] = ()
    """The full corpus: a folder, or files. What anchors give is in `anchor` in the output."""
    no_inotify: Flag = False
    """Only scan, every two seconds, as on network file systems."""
    settle: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 5.0
    """How many seconds a checkpoint without the --sentinel file must have been unchanged."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A YAML file with any of these options; the command line wins."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig(ValidationConfig):
    """Validate the named checkpoints once, and exit."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CKPT")]
    """Checkpoint folders."""
    output_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Where run files, values per query and vectors go. Default: none are written."""
    devices: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DEVICE...")] = ("auto",)
    """Where to run: cpu, 0 or cuda:0. Default: the first GPU, else the CPU."""
    json: Flag = False
    """Print JSON instead of a table."""
    profile: Flag = False
    """Print where the time went, and how near the encoding is to the machine's best rate."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A YAML file with any of these options; the command line wins."""


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig(ValidationConfig):
    """Tokenise queries and passages ahead of time, for `watch` with the same options.

    Options of search and measures change nothing.
    """

    checkpoint: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="CKPT")] = None
    """A checkpoint of the training. Default: none, but --tokenizer_name_or_path."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A YAML file with any of these options; the command line wins."""


@dataclass(frozen=True, kw_only=True)
class SubsetConfig:
    """What a corpus subset is made of."""

    candidate_dir: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...")]
    """The whole corpus: a folder, or files."""
    qrel_file: Annotated[
        tuple[Path, ...], tyro.conf.arg(aliases=["--qrel_files"], metavar="FILE...")
    ]
    """Judgements, whose relevant passages are always kept."""
    output_dir: Path
    """Where the subset goes. It must not have one already."""
    run_file: Annotated[
        tuple[Path, ...], tyro.conf.arg(aliases=["--run_files"], metavar="FILE...")
    ] = ()
    """Runs that choose passages, pooled: of TREC, MS MARCO or a toolkit, .gz may follow."""
    run_type: RunType = "auto"
    """The runs' form: trec; msmarco with a rank and score with a score in the third column;
    retromae with both. Default: by the first lines."""
    depth: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N...")] = ()
    """The lowest rank that is kept: one for all runs, or one for each. Default: 100."""
    target_size: MaybeInt = None
    """Keep at most so many passages: finds the largest depth with which they fit."""
    keep_judged: Flag = False
    """Keep passages that are judged not relevant, too."""
    random: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Keep so many passages more, drawn from all others."""
    seed: int = 0
    """Decides which those are."""
    num_splits: int = 1
    """How many files the subset is spread over, evenly."""
    strict: Flag = False
    """End with an error if the corpus does not have a passage that a run or a judgement names."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig(EncodingConfig, TextConfig, SubsetConfig):
    """Make a corpus subset: what runs retrieved, and what is relevant.

    Options of encoding count only with --from_checkpoint.
    """

    from_checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="CKPT")] = None
    """Without a run: encode everything with this checkpoint and take what it retrieves."""
    query_file: Annotated[
        tuple[Path, ...], tyro.conf.arg(aliases=["--query_files"], metavar="FILE...")
    ] = ()
    """The queries that --from_checkpoint searches for."""
    devices: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DEVICE...")] = ("auto",)
    """Where --from_checkpoint runs: cpu, 0 or cuda:0. Default: the first GPU, else the CPU."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A YAML file with any of these options; the command line wins."""


@dataclass(frozen=True, kw_only=True)
class FidelityConfig:
    """Say how far results on a subset order checkpoints as results on the full corpus do."""

    output_dir: Path
    """The output folder of an `asyncval watch` on the subset."""
    against: Path
    """The output folder of an `asyncval watch` on the full corpus."""
    json: Flag = False
    """Print JSON instead of a table."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Draw both curves and one against the other."""
    resamples: int = 1000
    """How many samples of the queries the intervals come from."""
    seed: int = 0
    """Decides which those are."""


@dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    """Print what was measured, ascending by step."""

    output_dir: Path
    """The output folder of an `asyncval watch`."""
    json: Flag = False
    """Print an array, one object a checkpoint, instead of a table."""


@dataclass(frozen=True, kw_only=True)
class StatusConfig:
    """Print what waits, what runs and what failed, and why."""

    output_dir: Path
    """The output folder of an `asyncval watch`."""
    json: Flag = False
    """Print JSON instead of lines."""


@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """Queue again what failed or was skipped."""

    output_dir: Path
    """The output folder of an `asyncval watch`, which may be running."""


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(ModelConfig):
    """Say what a folder is: whether it is a whole checkpoint, and how it would be read."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """Checkpoint folders."""
    ckpt_pattern: Annotated[str | None, tyro.conf.arg(metavar="REGEX")] = None
    """Names of checkpoint folders; the last group is the step. Default: checkpoint-500, 500 ..."""
    sentinel: str = "trainer_state.json"
    """The file that the trainer writes last."""
    json: Flag = False
    """Print an array, one object a folder."""
