import sys

from pipeline import warm
from pipeline.flow.stage import main

if __name__ == "__main__":
    code = warm.run("pipeline.flow.stage", sys.argv[1:])
    sys.exit(main(sys.argv[1:]) if code is None else code)
