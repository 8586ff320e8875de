"""The Python entry: a base model and its experts, to be asked.

from selfadapt import Assistant

assistant = Assistant.open(".")                           # a project's folder, after its run
answer = assistant.generate("What is 17 + 25?", "classifier")
print(answer.text, answer.decision)
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.model.forward.base import load_base, prepare_process
from pipeline.serving.choosing import Options
from pipeline.serving.engine import Engine
from pipeline.serving.jobs import Answered, Decision, Job, Strategy
from pipeline.serving.project import Project
from pipeline.serving.rows import Resident
from pipeline.serving.strategies import Coefficients, Strategies

NEW_TOKENS = 256  # of an answer, where nobody says how long it may be
ROLES = ("system", "user", "assistant")
# A prompt, or the turns of a chat, each {"role": …, "content": …}; a user's turn may have "images": paths or data URLs.
Prompt = str | Sequence[Mapping[str, Any]]
# A strategy by its name (see ``pipeline.serving.strategies``), or the coefficients of a mixture of experts.
Chosen = str | Coefficients


def chat_of(prompt: Any) -> list[dict[str, Any]]:
    """The turns of a chat, checked: each has a role and text, and perhaps pictures, and the last is the user's."""
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(turns, list | tuple) or not turns:
        raise UserError("expected a prompt or a list of chat turns, got none; write one")
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str):
            raise UserError(f"expected turn {number} to have its text as 'content', got {str(turn)[:60]}; write it so")
        if any("\ud800" <= letter <= "\udfff" for letter in turn["content"]):  # what Python reads such bytes as
            said = ascii(turn["content"][:40])
            raise UserError(
                f"expected turn {number} as text in UTF-8, got bytes of another encoding in {said}; convert it"
            )
        if turn.get("role") not in ROLES:
            role = str(turn.get("role"))[:60]
            raise UserError(f"expected the role of turn {number} among {', '.join(ROLES)}, got '{role}'; correct it")
        shown = turn.get("images", ())
        if not isinstance(shown, list | tuple) or not all(isinstance(one, str) for one in shown):
            raise UserError(
                f"expected a list of pictures as 'images' of turn {number}, got {str(shown)[:60]}; list them"
            )
        if shown and turn["role"] != "user":
            raise UserError(
                f"expected pictures in a user's turn, got some in turn {number}, the {turn['role']}'s; move them"
            )
    if turns[-1]["role"] != "user":
        raise UserError(f"expected the last turn to be the user's, got the {turns[-1]['role']}'s; end with a question")
    if not turns[-1]["content"].strip():
        raise UserError("expected a prompt, got an empty one; write one")
    return [
        {key: turn[key] for key in ("role", "content", "images") if turn.get(key) or key != "images"} for turn in turns
    ]


class Assistant:
    """A base model with everything that was trained for it. Not for several threads at once: that is the server's."""

    def __init__(self, project: Project, *, rows: int = 32) -> None:
        compute = project.compute()
        prepare_process(compute)
        if not project.model.is_dir():
            raise UserError(f"expected the base model in {project.model}, which is not there; run 'dvc repro' first")
        self.project = project
        self.base = load_base(project.model, compute)
        factors = Resident(project.factors, self.base.model)
        self.engine = Engine(self.base, factors, compute, rows=rows)
        self.available = Strategies(project, self.base, factors)

    @classmethod
    def open(cls, folder: str | Path = ".", *, rows: int = 32) -> "Assistant":
        """The assistant of a project's folder."""
        return cls(Project(Path(folder)), rows=rows)

    def strategies(self) -> list[str]:
        """The names that ``generate`` takes, of what the run has made so far."""
        return self.available.names()

    def strategy(self, chosen: Chosen) -> Strategy:
        """What a name or the coefficients of a mixture stand for."""
        return self.available.named(chosen) if isinstance(chosen, str) else self.available.mixture(chosen)

    def job(
        self,
        prompt: Prompt,
        strategy: Chosen,
        tell: Any,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        plain: bool = False,
    ) -> Job:
        """One question as the engine takes it, checked.

        max_new_tokens: at most; None: as many as fit, and no more than 256. seed: of what is drawn, which begins above
            temperature 0. plain: the question stands as it is; else an expert is asked in the form that it was trained
            in, unless the turns begin with the system's (see ``pipeline.serving.forms``).
        """
        turns = chat_of(prompt)
        most = NEW_TOKENS if max_new_tokens is None else max_new_tokens
        if not most >= 1:
            raise UserError(f"expected at least 1 new token, got {most}; ask for more")
        if not 0 <= temperature <= 100:
            raise UserError(f"expected a temperature from 0 to 100, got {temperature}; correct it")
        options = Options(max_new_tokens=most, temperature=temperature, seed=seed)
        return Job(turns, self.strategy(strategy), options, tell, plain=plain, shrinks=max_new_tokens is None)

    def stream(self, prompt: Prompt, strategy: Chosen = "base", **how: Any) -> Iterator[Decision | str | Answered]:
        """The first pass's decision, then the answer piece by piece, then what it came to. how: as for ``generate``."""
        heard: list[Any] = []
        job = self.job(prompt, strategy, heard.append, **how)
        self.engine.submit(job)
        try:
            while self.engine.step() or heard:
                for news in heard:
                    if isinstance(news, Exception):
                        raise news
                    yield news
                    if isinstance(news, Answered):
                        return
                heard.clear()
        finally:
            self.engine.cancel(job)

    def generate(self, prompt: Prompt, strategy: Chosen = "base", **how: Any) -> Answered:
        """One answer. how: ``max_new_tokens``, ``temperature`` (0: greedy), ``seed`` and ``plain``."""
        (answer,) = self.answer([(prompt, strategy)], **how)
        return answer

    def answer(self, questions: Sequence[tuple[Prompt, Chosen]], **how: Any) -> list[Answered]:
        """Many answers, side by side, each under its own strategy."""
        heard: list[list[Any]] = [[] for _ in questions]
        jobs = [self.job(prompt, chosen, heard[n].append, **how) for n, (prompt, chosen) in enumerate(questions)]
        self.engine.finish(jobs)
        for news in heard:
            if isinstance(news[-1], Exception):
                raise news[-1]
        return [news[-1] for news in heard]
