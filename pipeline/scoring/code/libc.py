"""Functions of the C library that Python has no name for. Standard library only: used inside the sandbox."""

import ctypes
import os
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """Call a function of the C library. OSError where it fails."""
    return _checked(getattr(LIBC, name)(*arguments), name)


def system_call(number: int, name: str, *arguments: Any) -> int:
    """Make a system call by its number. OSError where it fails."""
    return _checked(LIBC.syscall(ctypes.c_long(number), *arguments), name)


def _checked(result: int, name: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result
