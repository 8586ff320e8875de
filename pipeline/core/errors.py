"""The one exception a person is meant to read."""


class UserError(Exception):
    """Something outside the code is wrong, and a person can put it right.

    The message is one sentence that says what was expected, what was found, and what to do about it. The
    stage runner and the command line print it without a traceback and exit with a code other than 0.
    """
