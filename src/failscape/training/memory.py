"""Memory that a training takes again at every step."""

import ctypes
import os
import platform
import sys
from functools import cache

# As `malloc.h` of glibc numbers them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The most that glibc accepts for blocks that are not mapped one by one, and what it may keep free in all.
_LARGEST_BLOCK, _KEPT = 32 * 2**20, 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Have the C library keep memory that tensors free for the tensors of the next step; say whether it does.

    By default glibc gives blocks of more than 128 KiB back to the system and asks for them again, page by page: of a
    StyleGAN2's step in bfloat16 that was 4,000 to 8,000 page faults, 3 to 7 % of its time. The process stays as large
    as it has once been. Does nothing where there is no glibc, or where `MALLOC_MMAP_THRESHOLD_` or
    `MALLOC_TRIM_THRESHOLD_` in the environment say otherwise.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    if {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & set(os.environ):
        return False
    library = ctypes.CDLL(None)
    wanted = ((_MMAP_THRESHOLD, _LARGEST_BLOCK), (_TRIM_THRESHOLD, _KEPT))
    # 1 means done. To set either also ends the adaptation of both.
    return all(library.mallopt(which, value) == 1 for which, value in wanted)
