"""selfadapt in a program of one's own.

    from selfadapt import Assistant

    assistant = Assistant.open(".")                           # a project's folder, after its run
    print(assistant.generate("What is 17 + 25?", "expert:sums").text)

``Assistant`` is described in ``pipeline.serving.assistant``, strategies in ``pipeline.serving.strategies``. Whatever a
person can put right is raised as ``UserError``, one sentence.
"""

from typing import TYPE_CHECKING, Any

from pipeline.core.errors import UserError

if TYPE_CHECKING:
    from pipeline.serving.assistant import Assistant
    from pipeline.serving.jobs import Answered, Decision

__all__ = ["Answered", "Assistant", "Decision", "UserError"]


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: the command line lives in this package, and its help needs no torch."""
    if name == "Assistant":
        from pipeline.serving.assistant import Assistant

        return Assistant
    if name in ("Answered", "Decision"):
        from pipeline.serving import jobs

        return getattr(jobs, name)
    raise AttributeError(f"module 'selfadapt' has no attribute '{name}'")
