"""How right a rule is that needs no model: what any score has to be read beside.

A rule answers every test example, and its answers are scored as a model's are. Rules of every task:

    the commonest answer in training   the ``answer`` that most training examples have, or the commonest ``target``
    chance                             a choice drawn at random: one over the number of choices, nothing is answered
    the first choice, the second, ...  the choice at this place, in the order of mention
    the last choice                    of however many there are

A task adds what a sceptic would try, in its module: ``HEURISTICS``, from a rule's name in plain words to a function
that answers an example, as text.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.types import Example, Scorer

Rule = Callable[[Example], str]
PLACES = ("first", "second", "third", "fourth", "fifth")


@dataclass(frozen=True)
class Applied:
    """What a rule is worth on one example. value: in [0, 1]. answer: what it says; None where it says nothing."""

    rule: str
    id: str
    value: float
    answer: str | None


def applied(train: Sequence[Example], test: Sequence[Example], score: Scorer, own: Mapping[str, Rule]) -> list[Applied]:
    """Every rule on every test example. own: the task's rules."""
    rules: dict[str, Rule] = {**_commonest(train), **own}
    found = []
    for name, rule in rules.items():
        answers = [rule(example) for example in test]
        scores = score(test, answers)
        found += [
            Applied(name, example.id, float(item.correct), answer)
            for example, item, answer in zip(test, scores, answers, strict=True)
        ]
    return found + _places(test) + _chance(test)


def _commonest(train: Sequence[Example]) -> dict[str, Rule]:
    """The rule that always gives the answer most common in training; none where no two answers are alike."""
    said = Counter(str(example.meta.get("answer", example.target)) for example in train)
    if not said or max(said.values()) == 1:
        return {}
    commonest = max(said, key=lambda answer: said[answer])
    return {"the commonest answer in training": lambda example: commonest}


def _places(test: Sequence[Example]) -> list[Applied]:
    """The rules that always take the choice at one place. An example that has no choice there is answered wrong."""
    longest = max((len(example.choices) for example in test), default=0)
    found = []
    for place in range(min(longest, len(PLACES))):
        name = f"the {PLACES[place]} choice"
        found += [_taken(name, example, list(example.choices)[place : place + 1]) for example in test]
    if len({len(example.choices) for example in test}) > 1:  # else it is one of those
        found += [_taken("the last choice", example, list(example.choices)[-1:]) for example in test]
    return found


def _taken(name: str, example: Example, labels: Sequence[str]) -> Applied:
    if not labels:
        return Applied(name, example.id, 0.0, None)
    return Applied(name, example.id, float(labels[0] == example.meta["answer"]), example.choices[labels[0]])


def _chance(test: Sequence[Example]) -> list[Applied]:
    offered = [example for example in test if example.choices]
    return [Applied("chance", example.id, 1 / len(example.choices), None) for example in offered]
