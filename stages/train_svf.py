"""Train one SVF expert on one task by REINFORCE: what ``train_reinforce`` does for any method.

It is a stage of its own since the experts are what everything else builds on: strategies mix them, searches weigh them.
"""

from pipeline.core.stage import main
from stages.train_reinforce import run

__all__ = ["run"]

if __name__ == "__main__":
    main()
