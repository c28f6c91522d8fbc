"""What is asked of glibc's allocator, so that memory does not grow with the number of texts.

Tensors of ever other sizes leave free pages between those in use. Without a word, each thread has
a heap of its own, and none gives such pages back. Other allocators are left alone.
"""

import ctypes
from typing import Any

M_ARENA_MAX = -8  # of malloc.h


def share_one_heap() -> None:
    """Keep all threads that begin after this to one heap."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Return the free pages to the system."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _function(name: str) -> Any:  # noqa: ANN401
    return getattr(ctypes.CDLL(None), name, None)
