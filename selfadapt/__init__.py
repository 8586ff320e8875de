"""selfadapt in a program of one's own.

    from selfadapt import Assistant

    assistant = Assistant.open(".")                           # a project's folder, after its run
    print(assistant.generate("What is 17 + 25?", "expert:sums").text)

Whatever a person can put right is raised as ``UserError``, one sentence. Importing this package also has peft know SVF,
LoReFT and CS-ReFT (``pipeline.serving.peft``), whichever of the two is imported first.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import UserError
from selfadapt.late import call_with

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


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: the command line lives in this package, and its help needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module 'selfadapt' has no attribute '{name}'")
    module: ModuleType
    if name == "Assistant":
        from pipeline.serving import assistant as module
    elif name in ("Answered", "Decision"):
        from pipeline.serving import jobs as module
    elif name == "SvfConfig":
        from pipeline.serving.peft import svf as module
    elif name in ("CsReftConfig", "LoReftConfig"):
        from pipeline.serving.peft import edits as module
    else:
        from selfadapt import entry as module
    return getattr(module, name)


def _have_peft_know() -> None:
    import pipeline.serving.peft.edits
    import pipeline.serving.peft.svf  # noqa: F401 - each enters its methods


call_with("peft", _have_peft_know)
