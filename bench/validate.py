"""How long one validation takes: ours, Sentence Transformers' and the first Asyncval's.

    python bench/validate.py --st_python ST/bin/python --asyncval_python OLD/bin/python

Each runs in a process of its own that stays warm, in turns, and loads the checkpoint anew each
time, as a daemon does for the second checkpoint and all later ones. Ours is what a worker does
for a job, run files included. Sentence Transformers' is its InformationRetrievalEvaluator at its
default batch size. The first Asyncval's (0.2.0, which asks for CUDA) are its own data, encoding,
search and measures at its defaults, on the CPU and with token ids, its faster input; the encoder,
which its README leaves to the user, is the same mean of hidden states. It needs an environment
with asyncval==0.2.0, transformers<5 and datasets<4.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import workload

ROOT = Path(__file__).parents[1]
MEASURES = ("RR@10", "nDCG@10")
TITLES = {"ours": "Asyncval", "st": "Sentence Transformers", "asyncval": "Asyncval 0.2.0"}
HEAVY = ("load s", "encode queries s", "encode passages s", "search s")
Validation = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Place:
    """Where the collection and the checkpoint of a measurement lie."""

    collection: Path
    checkpoint: Path
    work: Path
    dtype: str


def ours(place: Place) -> Validation:
    """Return what a worker does for one job."""
    from asyncval.commands.preparation import read_collection, worker_setup
    from asyncval.config import EvalConfig
    from asyncval.core.types import Checkpoint
    from asyncval.evaluation import Evaluation, tame_libraries

    tame_libraries()
    config = EvalConfig(
        checkpoints=(place.checkpoint,),
        query_file=(place.collection / "queries.jsonl",),
        candidate_dir=(place.collection / "corpus.jsonl",),
        qrel_file=(place.collection / "qrels.tsv",),
        pooling="mean",
        similarity="cos",
        dtype=place.dtype,  # type: ignore[arg-type]
        cache_dir=place.work / "cache",
        metrics=MEASURES,
    )
    collection = read_collection(config, output_dir=place.work / "out")
    setup = worker_setup(config, collection, output_dir=place.work / "out")
    evaluation = Evaluation(setup, device="cpu")
    checkpoint = Checkpoint(path=place.checkpoint, step=1, layout="")

    def validate() -> Mapping[str, float]:
        result = evaluation.run(checkpoint)
        return {**result.metrics, **{f"{name} s": each for name, each in result.seconds.items()}}

    return validate


def st(place: Place) -> Validation:
    """Return a run of Sentence Transformers' evaluator."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.evaluation import InformationRetrievalEvaluator

    texts = {
        name: {row["text_id"]: row["text"] for row in _rows(place.collection / f"{name}.jsonl")}
        for name in ("queries", "corpus")
    }
    evaluator = InformationRetrievalEvaluator(
        queries=texts["queries"],
        corpus=texts["corpus"],
        relevant_docs={
            query: {passage}
            for query, _, passage, _ in map(str.split, _lines(place.collection / "qrels.tsv"))
        },
        mrr_at_k=[10],
        ndcg_at_k=[10],
        accuracy_at_k=[10],
        precision_recall_at_k=[10],
        map_at_k=[100],
        write_csv=False,
    )
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[place.dtype]

    def validate() -> Mapping[str, float]:
        model = SentenceTransformer(
            str(place.checkpoint), device="cpu", model_kwargs={"dtype": dtype}
        )
        model.max_seq_length = workload.P_MAX_LEN
        found = evaluator(model)
        return {"RR@10": found["cosine_mrr@10"], "nDCG@10": found["cosine_ndcg@10"]}

    return validate


def asyncval(place: Place) -> Validation:
    """Return what the first Asyncval does for one checkpoint, on the CPU."""
    import torch
    from asyncval.retriever import BaseFaissIPRetriever
    from transformers import AutoModel, BertTokenizer

    from asyncval.__main__ import encoding, search_queries
    from asyncval.data import EncodeDataset
    from asyncval.evaluation import Evaluator

    tokenizer = BertTokenizer(str(place.checkpoint / "vocab.txt"), model_max_length=512)
    files = {}
    for name in ("queries", "corpus"):
        files[name] = place.work / f"{name}.ids.json"
        with files[name].open("w") as file:
            for row in _rows(place.collection / f"{name}.jsonl"):
                pieces = tokenizer.encode(row["text"], add_special_tokens=False)
                file.write(json.dumps({"text_id": row["text_id"], "text": pieces}) + "\n")
    evaluator = Evaluator(str(place.collection / "qrels.tsv"), MEASURES)
    trainer = SimpleNamespace(per_device_eval_batch_size=8, dataloader_num_workers=0, fp16=False)
    arguments = SimpleNamespace(device="cpu", retrieve_batch_size=64, depth=100)

    class DenseModel:
        def __init__(self) -> None:
            self.model = AutoModel.from_pretrained(place.checkpoint, add_pooling_layer=False).eval()

        def encode_passage(self, batch):  # noqa: ANN001, ANN202
            hidden = self.model(**batch).last_hidden_state
            weights = batch["attention_mask"].unsqueeze(-1)
            vectors = (hidden * weights).sum(1) / weights.sum(1)
            return torch.nn.functional.normalize(vectors, dim=-1)

        encode_query = encode_passage

    def validate() -> Mapping[str, float]:
        model = DenseModel()
        vectors, ids = {}, {}
        for name, length in (("queries", workload.Q_MAX_LEN), ("corpus", workload.P_MAX_LEN)):
            data = EncodeDataset(
                str(files[name]), tokenizer, length, cache_dir=str(place.work / "datasets")
            )
            ids[name], vectors[name] = encoding(
                data, model, tokenizer, length, trainer, arguments, name == "queries"
            )
        retriever = BaseFaissIPRetriever(vectors["corpus"].numpy())
        scores, found = search_queries(
            retriever, vectors["queries"].numpy(), ids["corpus"], arguments
        )
        metrics = evaluator.compute_metrics(scores, found, ids["queries"])
        return {str(measure): float(value) for measure, value in metrics}

    return validate


PIPELINES = {"ours": ours, "st": st, "asyncval": asyncval}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in _lines(path)]


def serve(name: str, place: Place) -> None:
    """Validate once to warm up, then once for each line on standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    validate = PIPELINES[name](place)
    validate()
    print("{}", file=answers, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        values = validate()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, **values}), file=answers, flush=True)


class Peer:
    """A process that validates when it is told to."""

    def __init__(self, name: str, python: str, place: Place, log: Path) -> None:
        place.work.mkdir()
        values = {key: str(value) for key, value in asdict(place).items()}
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        environment.pop("PYTHONPATH", None)
        if name == "ours":
            environment["PYTHONPATH"] = str(ROOT)
        self._log = log
        self._process = subprocess.Popen(
            [python, __file__, "--serve", name, "--place", json.dumps(values)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            env=environment,
            text=True,
        )

    def answer(self) -> dict[str, float]:
        """Wait for the next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"A process ended:\n{self._log.read_text()[-3000:]}")
        return json.loads(line)

    def run(self) -> dict[str, float]:
        """Validate once."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Return what each pipeline said, round by round."""
    collection = folder / "collection"
    workload.make_collection(collection, passages=options.passages, queries=options.queries)
    checkpoint = workload.make_checkpoint(folder / "checkpoint", options.shape)
    pythons = {
        "ours": sys.executable,
        "st": options.st_python,
        "asyncval": options.asyncval_python if options.dtype == "fp32" else None,
    }
    peers = {
        name: Peer(
            name,
            python,
            Place(collection, checkpoint, folder / name, options.dtype),
            folder / f"{name}.log",
        )
        for name, python in pythons.items()
        if python
    }
    for peer in peers.values():
        peer.answer()
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
    for _ in range(options.repeats):
        for name, peer in peers.items():
            rounds[name].append(peer.run())
    for peer in peers.values():
        peer.close()
    return rounds


def phases(answers: list[dict[str, float]]) -> str:
    """Return a line with our seconds by phase, and the share of those beside the heavy work."""
    names = [key for key in answers[0] if key.endswith(" s") and key != "total s"]
    seconds = {name: statistics.median(each[name] for each in answers) for name in names}
    total = statistics.median(each["total s"] for each in answers)
    rest = statistics.median(
        1 - sum(each[name] for name in HEAVY if name in each) / each["total s"] for each in answers
    )
    listed = ", ".join(
        f"{name.removesuffix(' s')} {each:.3f} ({each / total:.1%})"
        for name, each in seconds.items()
    )
    return f"Ours by phase, median s: {listed}. All but encoding, search and loading: {rest:.2%}."


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description="Seconds of one validation, against peers.")
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--shape", choices=workload.SHAPES, default="minilm")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--st_python")
    parser.add_argument("--asyncval_python")
    parser.add_argument("--serve")
    parser.add_argument("--place")
    options = parser.parse_args()
    if options.serve:
        place = json.loads(options.place)
        folders = {key: Path(place[key]) for key in ("collection", "checkpoint", "work")}
        serve(options.serve, Place(**folders, dtype=place["dtype"]))
        return
    with tempfile.TemporaryDirectory() as folder:
        rounds = measure(options, Path(folder))
    medians = {
        name: statistics.median(each["seconds"] for each in answers)
        for name, answers in rounds.items()
    }
    rows = []
    for name, answers in rounds.items():
        seconds = [each["seconds"] for each in answers]
        ratios = [
            each["seconds"] / own["seconds"]
            for each, own in zip(answers, rounds["ours"], strict=True)
        ]
        metrics = [f"{answers[-1][measure]:.6f}" for measure in MEASURES]
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        ratio = f"{statistics.median(ratios):.2f}"
        rows.append([TITLES[name], f"{medians[name]:.2f}", spread, ratio, *metrics])
    title = (
        f"One validation: {options.passages} passages, {options.queries} queries, "
        f"{options.shape}, {options.dtype}, {len(os.sched_getaffinity(0))} cores, "
        f"{options.repeats} rounds"
    )
    header = ["", "median s", "range", "times ours (median of rounds)", *MEASURES]
    workload.save(
        f"validate-{options.passages}-{options.shape}-{options.dtype}",
        f"{workload.table(title, header, rows)}\n\n{phases(rounds['ours'])}",
        {"title": title, "rounds": rounds},
    )


if __name__ == "__main__":
    main()
