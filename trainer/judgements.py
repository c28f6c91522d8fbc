"""Judgements: which passages are known to be relevant, so that none is taken for a negative."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from asyncval.api import judged_pairs
from trainer.errors import InputError
from trainer.lines import LineFile, key_of

NO_PASSAGE = -1


class Judgements:
    """The relevant passages of each query, as numbers that processes can exchange."""

    def __init__(self, path: Path) -> None:
        """Read judgements of any form that `parse_judgement` knows."""
        file = LineFile(path, option="--qrels_file", kind="Judgement file")
        self._relevant: dict[str, list[int]] = {}
        for number, _, line in file:
            try:
                parsed = parse_judgement(line.decode())
            except ValueError as error:
                raise InputError(f"{file.where}, line {number}: {error}.") from error
            if parsed is not None:
                query_id, passage_ids = parsed
                self._relevant.setdefault(query_id, []).extend(map(key_of, passage_ids))
        if not self._relevant:
            raise InputError(f"{file.where} names no relevant passage.")
        self._width = max(map(len, self._relevant.values()))

    def of(self, query_ids: Iterable[str | None]) -> Tensor:
        """Return [B, R] int64 keys of relevant passages; R is the same for every batch."""
        rows = [self._relevant.get(str(query_id), []) for query_id in query_ids]
        return torch.tensor([row + [NO_PASSAGE] * (self._width - len(row)) for row in rows])


def parse_judgement(line: str) -> tuple[str, list[str]] | None:
    """Return a query and what a line says is relevant to it; None if it says of nothing.

    Raises:
        ValueError: it is none that Asyncval reads, in words that follow `'file', line 3: `.
    """
    pairs = judged_pairs(line.rstrip("\r\n"))
    relevant = [passage_id for _, passage_id, grade in pairs if grade >= 1]
    return (pairs[0][0], relevant) if relevant else None


def known_relevant(relevant: Tensor, passages: Tensor) -> Tensor:
    """Say which passages are relevant to which query.

    Args:
        relevant: [B, R] keys, as `Judgements.of` returns them.
        passages: [P] keys.

    Returns:
        [B, P] bool.
    """
    found = torch.zeros(len(relevant), len(passages), dtype=torch.bool, device=passages.device)
    for column in relevant.unbind(dim=1):  # one [B, P] comparison at a time, not [B, P, R]
        found |= column.unsqueeze(1) == passages
    return found
