"""Known relevant passages, so that none of them is taken for a negative of its query."""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from trainer.errors import InputError

NO_PASSAGE = -1


class Judgements:
    """The relevant passages of each query, as numbers that processes can exchange."""

    def __init__(self, path: Path) -> None:
        """Read TREC's `query 0 passage relevance` or BEIR's `query passage relevance`."""
        if not path.is_file():
            raise InputError(f"Judgements {str(path)!r} do not exist. Check --qrels_file.")
        self._relevant: dict[str, list[int]] = {}
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                fields = line.split()
                if not fields or (number == 1 and fields[0] == "query-id"):
                    continue
                try:
                    query_id, passage_id, relevance = fields[0], fields[-2], int(fields[-1])
                    if len(fields) not in (3, 4):
                        raise ValueError
                except (ValueError, IndexError) as error:
                    raise InputError(
                        f"Judgements {str(path)!r}, line {number}: {line.strip()!r} is neither "
                        "`query 0 passage relevance` nor `query passage relevance`."
                    ) from error
                if relevance > 0:
                    self._relevant.setdefault(query_id, []).append(passage_key(passage_id))
        if not self._relevant:
            raise InputError(f"Judgements {str(path)!r} name no relevant passage.")
        self._width = max(map(len, self._relevant.values()))

    def of(self, query_ids: Iterable[str | None]) -> Tensor:
        """Return [B, R] int64 keys of relevant passages; R is the same for every batch."""
        rows = [self._relevant.get(str(query_id), []) for query_id in query_ids]
        return torch.tensor([row + [NO_PASSAGE] * (self._width - len(row)) for row in rows])


def passage_key(passage_id: str | None) -> int:
    """Return a number of 63 bits for an id; two of a million ids share one by a chance of 1e-7."""
    digest = blake2b(str(passage_id).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


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
