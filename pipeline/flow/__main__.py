"""``python -m pipeline.flow <stage>[@<key>] --argument value …``: run one stage."""

import sys
from collections.abc import Sequence

LIGHT = ("code", "plan")  # they say what there is to run, in a fraction of a second


def main(argv: Sequence[str]) -> int:
    """Run one stage, forked from a process that has its libraries loaded where there is one; the exit code."""
    if argv and argv[0].partition("@")[0] in LIGHT:
        from pipeline.flow import one

        return one.main(argv, recorded=False)
    from pipeline.flow import identity, warm

    identity.complete()
    code = warm.run("pipeline.flow.one", argv)
    if code is None:
        from pipeline.flow import one  # only now: who asks for a warm stage needs none of its imports

        code = one.main(argv)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
