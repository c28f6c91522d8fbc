"""Everything that a machine with a GPU should tell, in under nine minutes by its own clock.

    python bench/gpu.py            # with torch and transformers, and FAISS and others if there
    python bench/gpu.py --small    # the same code on a CPU, on a few texts: does it run?

Equality with the CPU; how near encoding is to a matrix product, by shape and size of the corpus;
search; a whole warm validation; Sentence Transformers beside it; and what follows for the whole
of MS MARCO. What there is no time left for is left out and said. It needs no installation.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import workload  # noqa: E402

from asyncval.core.ranking import in_trec_order  # noqa: E402
from asyncval.evaluation import tame_libraries  # noqa: E402
from asyncval.retrieval import encode as encode_module  # noqa: E402
from asyncval.retrieval.encode import Encoding, encode, encode_portions  # noqa: E402
from asyncval.retrieval.profile import Work, matmul_rate  # noqa: E402
from asyncval.retrieval.search import TopK, resolve_backend  # noqa: E402
from asyncval.retrieval.tokens import TextIds, TokenStore  # noqa: E402

CLOCK = SimpleNamespace(monotonic=time.perf_counter, now=time.time)
MS_MARCO = 8_841_823
DEPTH = 100


@dataclass
class Report:
    """What was found so far, and how much time is left."""

    deadline: float
    lines: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.perf_counter()

    def say(self, line: str) -> None:
        """Print a line and keep it."""
        print(line, flush=True)
        self.lines.append(line)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Go on after what fails, and say it."""
        try:
            yield
        except Exception as error:
            self.say(f"- {name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")


def make_tokens(lengths: np.ndarray, *, seed: int = 3) -> TokenStore:
    """Return texts of these lengths of made-up tokens."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(5, workload.VOCABULARY, int(lengths.sum()), dtype=np.uint16)
    names = TextIds(np.empty(0, dtype=np.uint8), np.zeros(len(lengths) + 1, dtype=np.int64))
    return TokenStore(ids=ids, offsets=np.concatenate([[0], lengths.cumsum()]), text_ids=names)


def mean_of(backbone: torch.nn.Module) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return an encoder that takes the mean of the last hidden states, as a checkpoint's does."""

    def forward(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        known = None if mask.stride() == (0, 0) else mask
        hidden = backbone(input_ids=ids, attention_mask=known).last_hidden_state.float()
        weights = mask.unsqueeze(-1)
        return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)

    return forward


def finish(device: str) -> float:
    """Wait for the device and return the time."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def equality(report: Report, device: str, number: int) -> None:
    """Compare vectors and answers with those of the CPU, in fp32."""
    backbone = workload.make_backbone("minilm")
    tokens = make_tokens(workload.passage_lengths(number))
    queries = make_tokens(workload.query_lengths(50), seed=4)
    answers, vectors = [], []
    for place in ("cpu", device):
        forward = mean_of(backbone.to(place))
        encoding = Encoding(device=place)
        vectors.append(encode(tokens, forward, encoding=encoding))
        top = TopK(encode(queries, forward, encoding=encoding), depth=10, device=place)
        top.add(torch.from_numpy(vectors[-1]).to(place), first=0)
        ids = [f"{row:08}" for row in range(number)]
        answers.append(in_trec_order(*top.answers(), passage_ids=ids, depth=10)[1])
    difference = float(np.abs(vectors[0] - vectors[1]).max())
    same = float((answers[0] == answers[1]).mean())
    report.values["equality"] = {"max_difference": difference, "same_answers": same}
    report.say(
        f"- Equality with the CPU, fp32, {number} passages: largest difference of a component "
        f"{difference:.1e}; {same:.2%} of the top 10 at the same rank."
    )


def encoding_speed(
    report: Report, device: str, shape: str, number: int, *, precision: str, budget: int
) -> float:
    """Encode a corpus once warm; return tokens per second."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    forward = mean_of(workload.make_backbone(shape).to(device=device, dtype=dtype))
    lengths = workload.passage_lengths(number)
    tokens = make_tokens(lengths)
    encode_module.GPU_TOKENS = budget
    encoding = Encoding(device=device, precision=precision)
    encode(tokens[: min(number, 20_000)], forward, encoding=encoding)
    rate = matmul_rate(encoding, CLOCK)
    work = Work()
    start = finish(device)
    for portion in encode_portions(tokens, forward, encoding=encoding):
        work.add(portion)
        del portion
    seconds = finish(device) - start
    share = workload.operations(lengths, shape) / rate / seconds
    values = {
        "seconds": seconds,
        "tokens_per_second": work.tokens / seconds,
        "of_matmul": share,
        "matmul_teraflops": rate / 1e12,
        "padding": work.padded / work.tokens - 1,
    }
    report.values[f"encode {shape} {number} {precision} {budget}"] = values
    report.say(
        f"| {shape} | {precision} | {number:,} | {budget:,} | {seconds:.2f} | "
        f"{work.tokens / seconds:,.0f} | {share:.1%} | {rate / 1e12:.0f} | "
        f"{values['padding']:.2%} |"
    )
    return work.tokens / seconds


def search_speed(report: Report, device: str, queries: int, number: int, dimension: int) -> float:
    """Search a corpus that lies on the device; return the seconds."""
    generator = torch.Generator(device).manual_seed(1)
    passages = torch.randn((number, dimension), generator=generator, device=device)
    asked = torch.randn((queries, dimension), generator=generator, device=device).cpu().numpy()
    seconds = 0.0
    for backend in ("torch", "auto"):
        kind = resolve_backend(backend, device=device, depth=DEPTH)
        if backend == "auto" and kind == "torch":
            break
        for _ in range(2):
            top = TopK(asked, depth=DEPTH, backend=backend, device=device)
            start = finish(device)
            top.add(passages, first=0)
            seconds = finish(device) - start
        report.values[f"search {kind}"] = {"seconds": seconds, "passages": number}
        report.say(
            f"- Search, {kind}: {queries:,} queries x {number:,} passages x {dimension}, depth "
            f"{DEPTH}: {seconds:.2f} s."
        )
    return seconds


def warm_validation(
    report: Report, device: str, shape: str, number: int, *, num_queries: int, precision: str
) -> None:
    """Load a checkpoint, encode, search and order, as for a second checkpoint."""
    from asyncval.checkpoints.recognition import load_checkpoint
    from asyncval.core.types import Checkpoint, EncoderOptions

    tokens = make_tokens(workload.passage_lengths(number))
    names = [f"{row:08}" for row in range(number)]
    queries = make_tokens(workload.query_lengths(num_queries), seed=4)
    encoding = Encoding(device=device, precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        path = workload.make_checkpoint(Path(folder) / "checkpoint", shape)
        for _ in range(2):
            times = [finish(device)]
            loaded = load_checkpoint(
                Checkpoint(path=path, step=None, layout=""),
                EncoderOptions(pooling="mean", similarity="cos"),
                device=device,
                precision=precision,
            )
            times.append(finish(device))
            vectors = encode(queries, loaded.encoder.encode_queries, encoding=encoding)
            top = TopK(vectors, depth=DEPTH, device=device)
            searching = 0.0
            for portion in encode_portions(
                tokens, loaded.encoder.encode_passages, encoding=encoding
            ):
                start = finish(device)
                top.add(portion.vectors, first=portion.first)
                searching += finish(device) - start
            times.append(finish(device))
            in_trec_order(*top.answers(), passage_ids=names, depth=DEPTH)
            times.append(finish(device))
    load, encoded, ordered = np.diff(times)
    values = {
        "load": load,
        "encode": encoded - searching,
        "search": searching,
        "order": ordered,
        "total": times[-1] - times[0],
    }
    report.values["warm validation"] = values
    phases = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in values.items())
    report.say(
        f"- A warm validation without scoring, {shape} in {precision}, {number:,} passages and "
        f"{num_queries:,} queries: {phases}."
    )


def sentence_transformers(
    report: Report, device: str, shape: str, number: int, precision: str
) -> None:
    """Encode with Sentence Transformers, from texts, which it tokenises each time."""
    from sentence_transformers import SentenceTransformer

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    with tempfile.TemporaryDirectory() as folder:
        path = workload.make_checkpoint(Path(folder) / "checkpoint", shape)
        workload.make_collection(Path(folder), passages=number, queries=1)
        lines = (Path(folder) / "corpus.jsonl").read_text().splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        model = SentenceTransformer(str(path), device=device, model_kwargs={"dtype": dtype})
        model.max_seq_length = workload.P_MAX_LEN
        for batch_size in (32, 256):
            model.encode(texts[:1000], batch_size=batch_size)
            start = finish(device)
            model.encode(texts, batch_size=batch_size)
            seconds = finish(device) - start
            rate = float(workload.passage_lengths(number).sum()) / seconds
            report.values[f"sentence transformers {batch_size}"] = {"tokens_per_second": rate}
            report.say(
                f"- Sentence Transformers, {shape} in {precision}, batches of {batch_size}, "
                f"{number:,} passages: {rate:,.0f} tokens/s."
            )


def main() -> None:
    """Measure as long as there is time, print and write."""
    parser = argparse.ArgumentParser(description="Speed and equality on a GPU.")
    parser.add_argument("--small", action="store_true", help="on a CPU, to see that it runs")
    parser.add_argument("--seconds", type=float, default=510.0, help="when to stop")
    parser.add_argument("--output", type=Path, help="a folder for the results")
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        sys.exit("There is no CUDA device: give --small to run the code on a CPU.")
    report = Report(deadline=time.perf_counter() + options.seconds)
    # `cpu:0` is a device to torch, but to our code not the CPU with its worker threads.
    device = "cpu:0" if options.small else "cuda:0"
    name = "a CPU, small" if options.small else torch.cuda.get_device_name(0)
    precision = "fp32" if options.small else "bf16"
    num_queries = 50 if options.small else 6980
    tame_libraries()
    report.say(f"## {name}, torch {torch.__version__}\n")
    with report.part("equality"):
        equality(report, device, 60 if options.small else 2000)
    report.say(
        "\n| shape | precision | passages | tokens a batch | s | tokens/s | of a matrix product "
        "| its TFLOP/s | padding |"
    )
    report.say("|" + " --- |" * 9)
    rates: dict[str, float] = {}
    shapes = ["tiny"] if options.small else ["bert-base", "minilm"]
    sizes = [300] if options.small else [100_000, 1_000_000]
    for shape in shapes:
        budgets = [4096] if options.small else [16_384, 32_768, 65_536, 131_072]
        best = budgets[0]
        for budget in budgets:
            with report.part(f"encode {shape}"):
                rate = encoding_speed(
                    report, device, shape, sizes[0], precision=precision, budget=budget
                )
                if rate > rates.get(shape, 0.0):
                    rates[shape], best = rate, budget
        seconds = 1.3 * 76 * sizes[-1] / rates.get(shape, 1.0)
        if len(sizes) > 1 and seconds < report.left() - 120:
            with report.part(f"encode {shape}"):
                rates[shape] = encoding_speed(
                    report, device, shape, sizes[-1], precision=precision, budget=best
                )
        encode_module.GPU_TOKENS = best
    report.say("")
    searched = 0.0
    with report.part("search"):
        searched = search_speed(report, device, num_queries, sizes[-1], 768)
    if report.left() > 60:
        with report.part("warm validation"):
            warm_validation(
                report, device, shapes[0], sizes[0], num_queries=num_queries, precision=precision
            )
    if report.left() > 60:
        with report.part("Sentence Transformers"):
            sentence_transformers(
                report, device, shapes[0], 200 if options.small else 20_000, precision
            )
    for shape, rate in rates.items():
        mean = float(workload.passage_lengths(100_000).mean())
        seconds = MS_MARCO * mean / rate + searched * MS_MARCO / sizes[-1]
        report.values[f"ms marco {shape}"] = {"seconds": seconds}
        report.say(
            f"- What follows for {MS_MARCO:,} passages, {shape}: {seconds:,.0f} s, by these rates."
        )
    folder = options.output or ROOT / "bench" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    stem = "gpu-small" if options.small else "gpu"
    (folder / f"{stem}.md").write_text("\n".join(report.lines) + "\n")
    (folder / f"{stem}.json").write_text(json.dumps(report.values, indent=1) + "\n")


if __name__ == "__main__":
    main()
