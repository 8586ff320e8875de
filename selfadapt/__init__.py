"""selfadapt in a program of one's own.

    from selfadapt import Assistant

    assistant = Assistant.open(".")                           # a project's folder, after its run
    print(assistant.generate("What is 17 + 25?", "expert:sums").text)

``Assistant`` is described in ``pipeline.serving.assistant``, strategies in ``pipeline.serving.strategies``. Whatever a
person can put right is raised as ``UserError``, one sentence.
"""

from pipeline.core.errors import UserError
from pipeline.serving.assistant import Assistant
from pipeline.serving.jobs import Answered, Decision

__all__ = ["Answered", "Assistant", "Decision", "UserError"]
