"""The one exception a person is meant to read."""


class UserError(Exception):
    """Something outside the code is wrong, and a person can put it right.

    The message is one sentence that says what was expected, what was found, and what to do about it. The
    stage runner and the command line print it without a traceback and exit with a code other than 0.
    """


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
