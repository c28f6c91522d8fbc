"""Names of measures, in the spelling of ir_measures, and what each is called in ranx.

`nDCG@10`, `RR@10`, `RR(rel=2)@10`, `AP`, `R@100`: one canonical text for each, whatever
case or older name it was given in (`ndcg@10`, `MRR@10`, `map`, `recall@100`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from asyncval.core.errors import InvalidOption

RANX_NAMES = {
    "RR": "mrr",
    "nDCG": "ndcg",
    "AP": "map",
    "P": "precision",
    "R": "recall",
    "Success": "hit_rate",
    "Rprec": "r-precision",
}
NEEDS_CUTOFF = frozenset({"P", "R", "Success"})
TAKES_NO_CUTOFF = frozenset({"Rprec"})
TAKES_NO_LEVEL = frozenset({"nDCG"})  # its gains are the grades themselves
ALIASES = {
    "mrr": "RR",
    "recip_rank": "RR",
    "map": "AP",
    "ndcg_cut": "nDCG",
    "precision": "P",
    "recall": "R",
    "hit": "Success",
    "hit_rate": "Success",
    "hits": "Success",
}
_BY_LOWER_CASE = {name.lower(): name for name in RANX_NAMES} | ALIASES
_PATTERN = re.compile(r"(?P<name>[A-Za-z_]+)(\(rel=(?P<level>[1-9]\d*)\))?(@(?P<cutoff>[1-9]\d*))?")


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: its name, the rank it looks to (None: all), the grade that is relevant."""

    name: str
    cutoff: int | None = None
    level: int = 1

    def __str__(self) -> str:
        level = "" if self.level == 1 else f"(rel={self.level})"
        cutoff = "" if self.cutoff is None else f"@{self.cutoff}"
        return f"{self.name}{level}{cutoff}"

    @property
    def ranx_name(self) -> str:
        """The same measure as ranx spells it."""
        cutoff = "" if self.cutoff is None else f"@{self.cutoff}"
        level = "" if self.level == 1 else f"-l{self.level}"
        return f"{RANX_NAMES[self.name]}{cutoff}{level}"


def parse_measures(texts: Sequence[str]) -> tuple[Measure, ...]:
    """Read all names, each once, in the order given.

    Raises:
        InvalidOption: Some cannot be read; the message has all of them at once.
    """
    measures = [_parse(text) for text in texts]
    unknown = [text for text, measure in zip(texts, measures, strict=True) if measure is None]
    if unknown:
        raise InvalidOption(
            f"--metrics: not known: {', '.join(repr(text) for text in unknown)}. There are RR, "
            "nDCG and AP (with a cutoff, as RR@10, or without), P@k, R@k, Success@k and Rprec; "
            "RR(rel=2)@10 counts only grades of 2 or more."
        )
    if not measures:
        raise InvalidOption("--metrics: give at least one measure, for example RR@10.")
    return tuple(dict.fromkeys(measure for measure in measures if measure is not None))


def _parse(text: str) -> Measure | None:
    match = _PATTERN.fullmatch(text.strip())
    name = _BY_LOWER_CASE.get(match["name"].lower()) if match else None
    if match is None or name is None:
        return None
    cutoff = int(match["cutoff"]) if match["cutoff"] else None
    level = int(match["level"] or 1)
    if cutoff is None and name in NEEDS_CUTOFF:
        return None
    if cutoff is not None and name in TAKES_NO_CUTOFF:
        return None
    if level != 1 and name in TAKES_NO_LEVEL:
        return None
    return Measure(name, cutoff, level)


def check_depth(measures: Sequence[Measure], depth: int) -> None:
    """Refuse a depth that would cut a measure short.

    Raises:
        InvalidOption: A cutoff is larger than `depth`.
    """
    deep = [str(m) for m in measures if m.cutoff is not None and m.cutoff > depth]
    if deep:
        raise InvalidOption(
            f"--depth {depth} is below the cutoff of {', '.join(deep)}: give --depth "
            f"{max(m.cutoff or 0 for m in measures)} or more."
        )
