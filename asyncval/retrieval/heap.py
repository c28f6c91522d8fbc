"""What is asked of libraries so that memory does not grow with the number of texts.

Tensors of ever other sizes leave free pages between those in use. Without a word, each thread has
a heap of glibc's own, and none gives such pages back; other allocators are left alone. And oneDNN,
and PyTorch above it, keep what they prepared for each of a thousand numbers of rows.
"""

import ctypes
import os
from typing import Any

M_ARENA_MAX = -8  # of malloc.h
CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
PREPARED = "64"
"""For how many layers and numbers of rows what was prepared is kept; a batch takes far longer."""


def share_one_heap() -> None:
    """Keep all threads that begin after this to one heap."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def bound_caches() -> None:
    """Keep the caches of products small, if nobody has said how large; before torch is imported."""
    for name in CACHES:
        os.environ.setdefault(name, PREPARED)


def give_back() -> None:
    """Return the free pages to the system."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _function(name: str) -> Any:  # noqa: ANN401
    return getattr(ctypes.CDLL(None), name, None)
