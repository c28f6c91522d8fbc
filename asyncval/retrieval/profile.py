"""How fast texts were encoded, and how near that is to what the machine could do at most.

The most is the rate of a plain matrix product, measured once by a process, in the precision and
with the workers of the encoding. The work is counted for real tokens only: padding is waste.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from asyncval.core.ports import Clock
from asyncval.linears import linear

if TYPE_CHECKING:
    from asyncval.retrieval.encode import Encoding, Forward, Portion

CPU_SIZE = (2048, 768)
GPU_SIZE = (16384, 4096)
"""Rows and columns of a matrix product that is large enough to show what the machine can."""
_RATES: dict[tuple[str, str, int], float] = {}
REPEATS = 5
SHORT, LONG = 4, 16
"""Tokens of the two texts that tell what a token costs."""


@dataclass(slots=True)
class Work:
    """Tokens that were encoded by one tower: of texts, with padding, and squared by text."""

    tokens: int = 0
    padded: int = 0
    squares: int = 0

    def add(self, portion: "Portion") -> None:
        """Count a portion."""
        self.tokens += portion.num_tokens
        self.padded += portion.num_padded
        self.squares += portion.sum_of_squares


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A text of L tokens takes `linear` L + `quadratic` L² floating point operations."""

    linear: float
    quadratic: float


@dataclass(slots=True)
class Speedometer:
    """Adds up what was encoded for one checkpoint.

    Args:
        device: Where.
        rate: The machine's best, in operations per second; 0 where it is not known.
        costs: That of each tower's tokens, where it was found for a checkpoint before: all of a
            run are of one architecture.
    """

    device: str
    rate: float
    costs: dict[str, Cost] = field(default_factory=dict)
    _works: list[tuple[str, Work]] = field(default_factory=list)

    def work(self, tower: str, forward: "Forward") -> Work:
        """Return where to count what a tower encodes."""
        if tower not in self.costs:
            self.costs[tower] = cost_of(forward, device=self.device)
        work = Work()
        self._works.append((tower, work))
        return work

    def speed(self, seconds: float) -> dict[str, float]:
        """Return what follows from so many seconds of encoding.

        `tokens_per_second` counts real tokens; `padding` is the share by which padding makes
        them more; `of_floor` is the share of the seconds that the matrix products alone would
        take at the machine's best rate, 0 where it cannot be known.
        """
        tokens = sum(work.tokens for _, work in self._works)
        padded = sum(work.padded for _, work in self._works)
        operations = sum(
            self.costs[tower].linear * work.tokens + self.costs[tower].quadratic * work.squares
            for tower, work in self._works
        )
        return {
            "tokens_per_second": tokens / seconds if seconds else 0.0,
            "padding": padded / tokens - 1 if tokens else 0.0,
            "of_floor": operations / self.rate / seconds if seconds and self.rate else 0.0,
        }


def cost_of(forward: "Forward", *, device: str) -> Cost:
    """Return what matrix products cost a tower: two texts of different lengths tell it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:  # noqa: ANN401
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    def packed(rows: Any, weight: Any, *rest: Any, **more: Any) -> int:  # noqa: ANN401
        return int(2 * prod(rows) * weight[0])

    mapping: dict[Any, Any] = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention
    }
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        mapping[torch.ops.mkldnn._linear_pointwise] = packed
    counts = []
    for length in (SHORT, LONG):
        ids = torch.zeros((1, length), dtype=torch.int64, device=device)
        counter = FlopCounterMode(display=False, custom_mapping=mapping)
        with torch.inference_mode(), counter:
            forward(ids, torch.ones_like(ids))
        counts.append(float(counter.get_total_flops()))
    short, long = counts
    quadratic = (long / LONG - short / SHORT) / (LONG - SHORT)
    return Cost(linear=short / SHORT - quadratic * SHORT, quadratic=quadratic)


def matmul_rate(encoding: "Encoding", clock: Clock) -> float:
    """Return the most operations per second of a matrix product, by all workers at once.

    It is measured once in a process.
    """
    key = (encoding.device, encoding.precision, encoding.num_workers)
    if key not in _RATES:
        _RATES[key] = measure_rate(encoding, clock)
    return _RATES[key]


def measure_rate(encoding: "Encoding", clock: Clock) -> float:
    """Measure what `matmul_rate` returns, now."""
    import torch

    device, num_workers = encoding.device, encoding.num_workers
    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    dtype = dtypes[encoding.precision]
    is_gpu = device.startswith("cuda")
    rows, hidden = GPU_SIZE if is_gpu else CPU_SIZE
    inputs = torch.ones((rows, hidden), dtype=dtype, device=device)
    weights = torch.ones((4 * hidden, hidden), dtype=dtype, device=device)
    synchronize: Callable[[], Any] = torch.cuda.synchronize if is_gpu else lambda: None

    multiply = partial(torch.nn.functional.linear, weight=weights) if is_gpu else linear(weights)

    def product(_: int) -> None:
        with torch.inference_mode():
            multiply(inputs)

    seconds = []
    with ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in range(REPEATS):
            start = clock.monotonic()
            list(pool.map(product, range(num_workers)))
            synchronize()
            seconds.append(clock.monotonic() - start)
    operations = 2 * rows * hidden * 4 * hidden * num_workers
    return operations / min(seconds) if min(seconds) > 0 else 0.0
