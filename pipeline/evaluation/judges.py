"""The judges of ``params.yaml``, what they say of a cell's answers, and a local language model as one of them.

A local model is asked, in the words of ``scoring.preference.judges``, which of two answers is better. It says so by
log p("1") and log p("2") as its reply, once with the answers in either order. A model that always picks the same
position yields ties. The preference is therefore that of the sum over both orders, in which a liking for one position
cancels, so that even a small model prefers something.

It reads only the beginning of each answer, as far as the setting ``characters`` says: two whole answers in both orders
are about two thousand tokens for one pair, of which a small model makes little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import bar
from pipeline.core.types import Example
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.base import Adapted, Base, Compute, load_base
from pipeline.scoring import preference
from pipeline.scoring.preference import DRAW
from pipeline.scoring.preference.judges import QUESTION, Judge, by_chance, endpoint, longer

PIECE = 50  # pairs judged between two checkpoints


class Judging(Section, at="judges.{judge}"):
    """A judge: the longer answer, chance, the base model (``local``), or one behind an OpenAI-compatible endpoint.

    task: the benchmark on whose annotations its agreement with GPT-4 is measured.
    pairs, seed: how many of those annotations are drawn, and by which seed.
    characters: how much of each answer a local model reads.
    url, model: of an endpoint.
    """

    kind: Literal["longer", "chance", "local", "endpoint"]
    task: str
    pairs: int
    seed: int
    characters: int = 0
    url: str = ""
    model: str = ""


def judge_of(name: str, settings: Judging, *, model: Path, compute: Compute) -> Judge:
    """The judge of a name. model: the base model's folder."""
    if settings.kind == "local":
        if settings.characters < 1:
            raise UserError(
                f"params.yaml: expected 'judges.{name}' of a local model to have 'characters', how much of each answer "
                "it reads, got none; add it"
            )
        return local(load_base(model, compute), compute, settings.characters)
    if settings.kind == "endpoint":
        if not (settings.url and settings.model):
            raise UserError(f"params.yaml: expected 'url' and 'model' in 'judges.{name}', got neither or one; add them")
        return endpoint(settings.url, settings.model)
    return longer if settings.kind == "longer" else by_chance(settings.seed)


def in_pieces(
    judge: Judge, pairs: Sequence[tuple[str, str, str]], name: str, checkpoints: Checkpoints
) -> list[float | None]:
    """What a judge prefers in many pairs, each an instruction and two answers.

    A killed run goes on behind the last piece that it finished.
    """
    state = checkpoints.load(name)
    preferences: list[float | None] = state[1]["said"] if state else []
    with bar("pairs", len(pairs)) as drawn:
        drawn.advance(len(preferences))
        while len(preferences) < len(pairs):
            piece = pairs[len(preferences) : len(preferences) + PIECE]
            preferences = [*preferences, *judge(piece)]
            checkpoints.save(name, {}, {"said": preferences})
            drawn.advance(len(piece))
    return preferences


@dataclass(frozen=True)
class Judged:
    """What a judge prefers between the answers of a cell and those of a reference model.

    prompts: with the reference's answer as target. answers: the cell's, in the same order.
    preferences: from 1 (the reference's answer) to 2 (the cell's); None where the judge did not say.
    """

    judge: str
    cell: str
    prompts: Sequence[Example]
    answers: Sequence[str]
    preferences: Sequence[float | None]

    @property
    def instructions(self) -> list[str]:
        return [prompt.meta["question"] for prompt in self.prompts]

    def annotations(self) -> list[dict[str, Any]]:
        """The preferences as AlpacaEval's annotators write them."""
        return [
            {
                "instruction": instruction,
                "output_1": prompt.target,
                "generator_1": prompt.meta["reference"],
                "output_2": answer,
                "generator_2": self.cell,
                "annotator": self.judge,
                "preference": value,
            }
            for instruction, prompt, answer, value in zip(
                self.instructions, self.prompts, self.answers, self.preferences, strict=True
            )
        ]

    def outcome(self, difficulty: Mapping[str, float], agreement: Mapping[str, Any]) -> dict[str, Any]:
        """What the report reads: preferences, the length-controlled win rate, and the judge's agreement with GPT-4.

        difficulty: instruction to γ, see ``preference.difficulties``. agreement: what the stage ``agree`` wrote.
        """
        controlled = preference.length_controlled_win_rate(
            self.preferences,
            [len(answer) for answer in self.answers],
            [len(prompt.target) for prompt in self.prompts],
            [difficulty.get(instruction, 0.0) for instruction in self.instructions],
        )
        return {
            "judge": self.judge,
            "cell": self.cell,
            "reference": self.prompts[0].meta["reference"],
            "preferences": list(self.preferences),
            "length_controlled_win_rate": controlled,
            "agreed": preference.agreeing(agreement["said"], agreement["gpt4"]),
            "drawn": preference.agreement(agreement["said"], agreement["gpt4"]).drawn,
        }


def local(base: Base, compute: Compute, characters: int) -> Judge:
    """The judge that a base model is. characters: how much of each answer it reads."""
    replies = [base.answer_ids(name)[:1] for name in ("1", "2")]

    def judge(pairs: Sequence[tuple[str, str, str]]) -> list[float | None]:
        questions = [
            QUESTION.format(instruction=instruction, first=first[:characters], second=second[:characters])
            for instruction, *answers in pairs
            for first, second in (answers, reversed(answers))
        ]
        likelihoods = weigh(
            Adapted(base, compute),
            [base.prompt_ids([{"role": "user", "content": question}]) for question in questions],
            [replies] * len(questions),
        )
        return [preferred(*likelihoods[place : place + 2]) for place in range(0, len(likelihoods), 2)]

    return judge


def preferred(asked: Sequence[float], swapped: Sequence[float]) -> float:
    """The preference of log-likelihoods (nats) of ("1", "2"), as asked and with the answers exchanged."""
    first = (asked[0] - asked[1]) - (swapped[0] - swapped[1])
    return DRAW if first == 0 else 1.0 if first > 0 else 2.0
