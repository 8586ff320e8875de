"""selfadapt in a program of one's own.

    from selfadapt import Assistant

    assistant = Assistant.open(".")                           # a project's folder, after its run
    print(assistant.generate("What is 17 + 25?", "expert:sums").text)

Whatever a person can put right is raised as ``UserError``, one sentence. Importing this package also has peft know SVF,
LoReFT and CS-ReFT (``pipeline.serving.peft``), whichever of the two is imported first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import UserError
from selfadapt.late import import_with

if TYPE_CHECKING:
    from pipeline.serving.assistant import Assistant
    from pipeline.serving.jobs import Answered, Decision
    from pipeline.serving.peft.edits import CsReftConfig, LoReftConfig
    from pipeline.serving.peft.svf import SvfConfig
    from selfadapt.entry import Evaluated, Trained, evaluate, load_expert, train

__all__ = [
    "Answered",
    "Assistant",
    "CsReftConfig",
    "Decision",
    "Evaluated",
    "LoReftConfig",
    "SvfConfig",
    "Trained",
    "UserError",
    "evaluate",
    "load_expert",
    "train",
]
# The module of each name: imported when the name is first asked for, since the command line lives in this package, and
# its help needs no torch.
PLACES = {
    "Assistant": "pipeline.serving.assistant",
    **dict.fromkeys(("Answered", "Decision"), "pipeline.serving.jobs"),
    **dict.fromkeys(("CsReftConfig", "LoReftConfig"), "pipeline.serving.peft.edits"),
    "SvfConfig": "pipeline.serving.peft.svf",
    **dict.fromkeys(("Evaluated", "Trained", "evaluate", "load_expert", "train"), "selfadapt.entry"),
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'selfadapt' has no attribute '{name}'")
    return getattr(import_module(PLACES[name]), name)


import_with("peft", "pipeline.serving.peft.svf", "pipeline.serving.peft.edits")
