"""Rows of one's own, asked and scored as settings say: the task of every name that has no file beside this one.

    mine:
      role: own
      data: {domain: others, seed: 0, rows: {path: mine.jsonl, prompt: question, answer: answer, scorer: numbers}}
      decoding: {max_new_tokens: 32}

An example's meta names its scorer, so that answers are scored without the settings:

    numbers   the number that the answer gives is the right one
    choices   the answer names the right one of the row's choices, which are asked under letters
    latex     the expression that the answer gives means the same as the right one
    code      the function that the answer defines passes the row's tests, in the sandbox
    exact     the answer is the right text, letters' case, spaces and a final full stop aside
    pattern   what the pattern finds last in the answer is the right text, likewise
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import Example, Score
from pipeline.scoring import choices, code, latex, numbers


class Rows(Section):
    """The rows, and what their columns are.

    path: of a file with one JSON object a line. prompt: the column that is asked; or a text with columns in braces,
        ``{context} {question}``. answer: the column with the right answer, which training learns to write.
    system: what stands before every question. worked: how many solved rows of the few-shot split stand in the chat
        before each question: they show the form of an answer.
    options: scorer ``choices``: the column with the list of choices, or with a mapping from label to text. The answer
        is one of the texts, one of the labels, or a letter.
    function, tests: scorer ``code``: the columns with the function's name and with a list of [arguments, value] pairs.
    pattern: scorer ``pattern``: a regular expression; its first group counts, if it has one.
    """

    path: str
    prompt: str
    answer: str
    scorer: Literal["numbers", "choices", "latex", "code", "exact", "pattern"]
    system: str = ""
    worked: int = Field(default=0, ge=0)
    options: str = "choices"
    function: str = "function"
    tests: str = "tests"
    pattern: str = ""


def examples(task: str, rows: Sequence[Mapping[str, Any]], settings: Rows) -> list[Example]:
    """An example of each row. UserError for the first row that does not have what the settings say, with its line."""
    if settings.scorer == "pattern":
        _compiled(settings.pattern)
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            found.append(_example(f"{task}-{number}", row, settings))
        except _Misfit as misfit:
            raise UserError(
                f"expected {misfit} in line {number} of {settings.path}; correct it, or 'tasks.{task}.data.rows' in "
                "params.yaml"
            ) from None
    return found


def worked(splits: Mapping[str, Sequence[Example]], settings: Rows) -> dict[str, list[Example]]:
    """Splits whose questions have solved rows before them: the few-shot split's first ones, which then leave it."""
    shown = list(splits["few_shot"][: settings.worked])
    rest = {**splits, "few_shot": splits["few_shot"][settings.worked :]}
    return {split: [example.after(shown) for example in several] for split, several in rest.items()}


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    """Each answer by the scorer of its example; programs in one batch."""
    programs = [place for place, example in enumerate(examples) if example.meta["scorer"] == "code"]
    tests = [(one.id, one.meta["function"], one.meta["tests"]) for one in (examples[place] for place in programs)]
    ran = dict(
        zip(programs, code.score(tests, [answers[place] for place in programs]) if programs else [], strict=True)
    )
    return [
        ran[place] if place in ran else _judged(example, answer)
        for place, (example, answer) in enumerate(zip(examples, answers, strict=True))
    ]


def _judged(example: Example, answer: str) -> Score:
    meta = example.meta
    if meta["scorer"] == "numbers":
        return numbers.score(example.id, answer, meta["answer"])
    if meta["scorer"] == "choices":
        return choices.score(example.id, answer, meta["answer"], meta["choices"])
    if meta["scorer"] == "latex":
        return latex.score(example.id, answer, meta["answer"])
    given: str | None = answer.strip() or None
    if meta["scorer"] == "pattern":
        given = _found(meta["pattern"], answer)
    correct = given is not None and _plain(given) == _plain(meta["answer"])
    return Score(example.id, float(correct), correct, given, marked=given is not None)


def _found(pattern: str, answer: str) -> str | None:
    """What a pattern finds last; None where it finds nothing."""
    matches = list(_compiled(pattern).finditer(answer))
    return (matches[-1][1] if matches[-1].re.groups else matches[-1][0]) if matches else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(
            f"expected a regular expression, got '{pattern}' ({error}); correct the rows' pattern"
        ) from None
    if not pattern:
        raise UserError("expected a regular expression as the rows' pattern, got nothing; write one in params.yaml")
    return compiled


# ---- a row as an example ---------------------------------------------------------------------------------------------


class _Misfit(Exception):
    """What was expected of a row, and what it has."""


def _example(id: str, row: Mapping[str, Any], settings: Rows) -> Example:
    if not isinstance(row, Mapping):
        raise _Misfit(f"a JSON object, got {str(row)[:40]!r},")
    question, answer = _question(row, settings.prompt), _text(row, settings.answer)
    system = ({"role": "system", "content": settings.system},) if settings.system else ()
    meta: dict[str, Any] = {"scorer": settings.scorer, "answer": answer}
    if settings.scorer == "choices":
        labelled = _choices(row, settings.options)
        made = choices.example(id, question, list(labelled.values()), _right(answer, labelled))
        return replace(
            made,
            messages=(*(system or made.messages[:1]), made.messages[-1]),
            meta={**made.meta, **meta, "answer": made.meta["answer"]},
        )
    if settings.scorer == "numbers" and numbers.read(answer) is None:
        raise _Misfit(f"a number as '{settings.answer}', got '{answer[:40]}',")
    if settings.scorer == "numbers":
        meta["answer"] = str(numbers.read(answer))
    if settings.scorer == "pattern":
        found = _found(settings.pattern, answer)
        meta |= {"pattern": settings.pattern, "answer": answer if found is None else found}
    if settings.scorer == "code":
        meta |= {"function": _text(row, settings.function), "tests": _tests(row, settings.tests)}
    return Example(id, (*system, {"role": "user", "content": question}), answer, meta)


def _question(row: Mapping[str, Any], prompt: str) -> str:
    if "{" not in prompt:
        return _text(row, prompt)
    return re.sub(r"\{([^{}]+)\}", lambda name: _text(row, name[1]), prompt)


def _text(row: Mapping[str, Any], column: str) -> str:
    """A column as text."""
    if column not in row:
        raise _Misfit(f"the column '{column}', got {', '.join(map(str, row)) or 'none'},")
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise _Misfit(f"a text or a number as '{column}', got {str(value)[:40]!r},")
    return str(value)


def _choices(row: Mapping[str, Any], column: str) -> dict[str, str]:
    """The choices of a row, label to text."""
    offered = row.get(column)
    if isinstance(offered, Sequence) and not isinstance(offered, str):
        offered = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", offered, strict=False)) if len(offered) <= 26 else None
    if not isinstance(offered, Mapping) or not 2 <= len(offered) <= 26:
        raise _Misfit(f"2 to 26 choices as '{column}', got {str(row.get(column))[:40]!r},")
    return {str(label): str(text) for label, text in offered.items()}


def _right(answer: str, labelled: Mapping[str, str]) -> int:
    """The place of the right choice."""
    by_text, labels = list(labelled.values()), list(labelled)
    if by_text.count(answer) == 1:
        return by_text.index(answer)
    if answer in labels:
        return labels.index(answer)
    raise _Misfit(f"one of the choices as the answer, got '{answer[:40]}',")


def _tests(row: Mapping[str, Any], column: str) -> list[Any]:
    tests = row.get(column)
    pairs = isinstance(tests, list) and tests and all(isinstance(test, list) and len(test) == 2 for test in tests)
    if not pairs or not all(isinstance(arguments, list) for arguments, _ in tests or ()):
        raise _Misfit(f"a list of [arguments, value] pairs as '{column}', got {str(tests)[:40]!r},")
    return list(tests or ())
