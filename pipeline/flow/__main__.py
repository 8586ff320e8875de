import sys

from pipeline.flow import warm


def main() -> int:
    """Run one stage, in a process that has its libraries loaded where there is one; the exit code."""
    code = warm.run("pipeline.flow.one", sys.argv[1:])
    if code is None:
        from pipeline.flow import one as stage  # only now: torch comes with it, which who only asks never needs

        code = stage.main(sys.argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
