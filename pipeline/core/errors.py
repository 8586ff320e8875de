"""The one exception a person is meant to read, and which errors of others become one."""

import errno


class UserError(Exception):
    """Something outside the code is wrong, and a person can put it right.

    The message is one sentence that says what was expected, what was found, and what to do about it. The
    stage runner and the command line print it without a traceback and exit with a code other than 0.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # what it names may have line ends


# What a person can put right where a file is written: no room, no permission, a file in place of a folder.
REFUSALS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.EISDIR,
    }
)


def refused(error: Exception, path: object = "") -> UserError | None:
    """The sentence for what the system refused; None for any other error. path: what was to be written."""
    if isinstance(error, OSError) and error.errno in REFUSALS:
        reason = f"{error.strerror}: {error.filename}"
    elif "I/O error" in str(error):  # safetensors and transformers pass on what the system said as text
        reason = str(error)
    else:
        return None
    written = path or getattr(error, "filename", None) or "a file"
    return UserError(
        f"expected to write {written}, but the system refused ({reason}); make room, or allow it, and run this again"
    )


def out_of_memory(error: Exception) -> UserError | None:
    """The sentence for an allocation that failed, on a CPU or an accelerator; None for any other error."""
    # By name, since who only reports an error need not load torch; for a CPU it has no exception of its own.
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not known and "can't allocate memory" not in str(error):
        return None
    return UserError(
        "expected memory for the prompts and answers computed at once, got none; lower compute.cache_tokens and "
        "compute.batch_tokens in params.yaml, or ask for fewer or shorter answers"
    )


def sentence(error: Exception) -> UserError | None:
    """What a person is told of an error that ends a command; None where it is a fault of ours, to be seen whole."""
    return error if isinstance(error, UserError) else refused(error) or out_of_memory(error)
