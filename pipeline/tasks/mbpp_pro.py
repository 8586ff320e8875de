"""Code, trained: MBPP (arXiv 2108.07732) with EvalPlus's further tests (MBPP+), which Transformer² calls MBPP-Pro.

The test split is the 378 tasks of MBPP+: the base tests decide, ``plus`` are EvalPlus's. The train split is the tasks
of MBPP that MBPP+ does not have, from whatever split, as far as all their assertions compare a call with a value.

JSON has no tuples, sets or complex numbers, so the types of the arguments of MBPP+ are read off the assertions that
each row carries. (EvalPlus keeps a table of task numbers for it.)
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring.code import differential
from pipeline.scoring.code.values import plain

TABLES = {
    "train": Table(
        columns=("task_id", "text", "code", "test_list", "test_setup_code"),
        origins=tuple(
            Origin(
                "hub",
                "google-research-datasets/mbpp",
                "4bb6404fdc6cacfda99d4ac4205087b89d32030c",
                f"full/{part}-00000-of-00001.parquet",
            )
            for part in ("prompt", "test", "validation", "train")
        ),
        mirror=("mbpp/ase/mbpp.jsonl",),
    ),
    "test": Table(
        columns=(
            "task_id",
            "prompt",
            "entry_point",
            "canonical_solution",
            "base_input",
            "plus_input",
            "atol",
            "assertion",
        ),
        origins=(
            Origin(
                "github",
                "evalplus/mbppplus_release",
                "dadf43da556a00f7bacd71cb154f2932757d9144",
                "MbppPlus.jsonl.gz",
                "af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
            ),
        ),
        mirror=("mbpp_plus/MbppPlus.jsonl.gz",),
    ),
}
SYSTEM = "Write the Python function. Answer with a block of Python code."
# Where the text admits more than one value.
ORACLES = {
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "whether"),
    **dict.fromkeys(
        (
            "similar_elements find_char_long common_in_nested_lists extract_singly larg_nnum intersection_array "
            "find_dissimilar Diff"
        ).split(),
        "set",
    ),
    "are_equivalent": "anything",
    "sum_div": "zero",
    "surface_Area": "pyramid",
    "digit_distance_nums": "digits",
}

COMPLEX = ("angle_complex", "convert")  # their arguments stand as texts, because JSON has no complex numbers
SECONDS = 4  # of CPU time for a call


class Options(Section):
    """worked: how many solved tasks stand in the chat before each question (default: none, the papers' form).

    They show a small model that the function has the name that the test calls, and that the answer ends with its block.
    The tasks with the shortest solutions are taken, and not trained on.
    """

    worked: int = Field(default=0, ge=0)


def question(row: Mapping[str, Any]) -> str:
    """The description alone, which MBPP and MBPP+ share."""
    return row["text"] if "text" in row else row["prompt"].strip().strip('"').strip().partition("\nassert")[0]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    tested = {row["task_id"].rpartition("/")[2] for row in tables["test"]}
    trained = [row for row in tables["train"] if str(row["task_id"]) not in tested]
    tests = differential.with_references([(row["canonical_solution"], _tests(row)) for row in tables["test"]])
    asked = {question(row) for row in tables["test"]}
    train = [example for row in trained if (example := _trained(row)) is not None]
    shown = [example for example in train if example.meta["question"] not in asked]
    shown = sorted(shown, key=lambda example: (len(example.target), example.id))[: options.worked]
    return {
        "train": [example.after(shown) for example in train if example not in shown],
        "test": [
            _example(
                row["task_id"],
                question(row),
                next(line for line in row["prompt"].splitlines() if line.startswith("assert")),
                row["canonical_solution"],
                test,
            ).after(shown)
            for row, test in zip(tables["test"], tests, strict=True)
        ],
    }


def _example(id: str, description: str, assertion: str, solution: str, tests: Mapping[str, Any]) -> Example:
    asked = f"{description}\nThe function has to pass this test:\n{assertion}"
    return Example(
        id=id,
        messages=({"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}),
        target=f"```python\n{solution.strip()}\n```",
        meta={"question": description, **tests},
    )


def _trained(row: Mapping[str, Any]) -> Example | None:
    """A row of MBPP whose assertions all compare a call of one function with a value; else None."""
    pairs = [_assertion(line) for line in row["test_list"]]
    functions = {pair[0] for pair in pairs if pair}
    if len(functions) != 1 or None in pairs or row["test_setup_code"]:
        return None
    tests = {
        "function": functions.pop(),
        "prelude": "",
        "base": [plain(arguments) for _, arguments, _ in filter(None, pairs)],
        "plus": [],
        "expected": [plain(value) for _, _, value in filter(None, pairs)],
        "atol": 0,
        "oracle": "",
        "seconds": SECONDS,
    }
    return _example(f"Mbpp/{row['task_id']}", row["text"], row["test_list"][0], row["code"].replace("\r", ""), tests)


def _assertion(line: str) -> tuple[str, list[Any], Any] | None:
    """Function, arguments and value of ``assert f(...) == value``; None for any other."""
    try:
        statement = ast.parse(line.strip()).body[0]
        test = statement.test  # type: ignore[attr-defined]
        function, arguments = test.left.func.id, [ast.literal_eval(argument) for argument in test.left.args]
        value = ast.literal_eval(test.comparators[0])
    except (SyntaxError, ValueError, AttributeError, IndexError, TypeError):
        return None
    return (function, arguments, value) if isinstance(test.ops[0], ast.Eq) and not test.left.keywords else None


# ---- the types of arguments ----------------------------------------------------------------------------------------


def _tests(row: Mapping[str, Any]) -> dict[str, Any]:
    function = row["entry_point"]
    types = _types(row["assertion"], function)
    return {
        "function": function,
        "prelude": "",
        **{
            kind: [
                plain([_number(value) for value in arguments])
                if function in COMPLEX
                else plain([_typed(value, types, place, 0) for place, value in enumerate(arguments)])
                for arguments in row[f"{kind}_input"] or []
            ]
            for kind in ("base", "plus")
        },
        "atol": row["atol"],
        "oracle": ORACLES.get(function, ""),
        "seconds": SECONDS,
    }


Types = Mapping[tuple[int, int], set[type]]  # (which argument, how deep in it): the types seen there


def _types(assertions: str, function: str) -> Types:
    seen: dict[tuple[int, int], set[type]] = defaultdict(set)
    for node in ast.walk(ast.parse(assertions)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            for place, argument in enumerate(node.args):
                for depth, value in _parts(_literal(argument), 0):
                    seen[place, depth].add(type(value))
    return seen


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:  # 14 * 14
        return 0


def _parts(value: Any, depth: int) -> Iterator[tuple[int, Any]]:
    yield depth, value
    if isinstance(value, list | tuple | set | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _parts(item, depth + 1)


def _typed(value: Any, types: Types, place: int, depth: int) -> Any:
    """A value of the row's JSON as the type that stands there in the assertions."""
    if isinstance(value, list):
        return _container(types, place, depth)(_typed(item, types, place, depth + 1) for item in value)
    if isinstance(value, dict):
        return {key: _typed(item, types, place, depth + 1) for key, item in value.items()}
    return value


def _number(value: str | float) -> float | complex:
    return complex(value) if isinstance(value, str) and "j" in value else float(value)


def _container(types: Types, place: int, depth: int) -> Callable[[Iterable[Any]], Any]:
    """The type of what holds values there; what is deeper than any assertion goes is of the type above it."""
    for level in range(depth, -1, -1):
        for kind in (tuple, set, list):
            if kind in types.get((place, level), set()):
                return kind
    return list


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return differential.score([example.meta for example in examples], answers, [example.id for example in examples])
