"""Imperfect answers, made from gold ones by a seeded hand: what a comparison of scorers needs."""

import ast
import random
import re
import textwrap

OTHER = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And, ast.Mod: ast.FloorDiv,
}  # fmt: skip


class _Slip(ast.NodeTransformer):
    """One slip at one place of a program: another operator, comparison, constant or truth."""

    def __init__(self, place: int) -> None:
        self.left = place

    def generic_visit(self, node: ast.AST) -> ast.AST:
        node = super().generic_visit(node)
        whole_number = isinstance(node, ast.Constant) and type(node.value) is int
        if type(node) in OTHER or whole_number:
            self.left -= 1
            if self.left == -1:
                return ast.Constant(node.value + 1) if whole_number else OTHER[type(node)]()
        return node


class _Returned(ast.NodeTransformer):
    """Every ``return value`` as other statements, in which VALUE stands for it."""

    def __init__(self, instead: str) -> None:
        self.instead = instead

    def visit_Return(self, node: ast.Return) -> ast.AST | list[ast.stmt]:
        value = f"({ast.unparse(node.value)})" if node.value else "None"
        return ast.parse(textwrap.dedent(self.instead).replace("VALUE", value)).body


# What a program does where it should return its value.
RETURNS = {
    "drops": "return None",
    "prints": "print(VALUE)",
    "prints, too": "print('result:', VALUE)\nreturn VALUE",
    "off by one": "return VALUE + 1",
    "nearly": "value = VALUE\nreturn value * (1 + 3e-8) if isinstance(value, float) else value",
    "about": "value = VALUE\nreturn value * (1 + 1e-4) if isinstance(value, float) else value",
    "text": "return str(VALUE)",
    "other sequence": (
        "value = VALUE\nreturn {list: tuple, tuple: list, set: list}.get(type(value), type(value))(value)"
    ),
    "float": "value = VALUE\nreturn float(value) if type(value) is int else value",
    "raises": "raise ValueError(VALUE)",
    "exits": "exit(0)",
    "loops": "while True:\n    pass",
}


def program(source: str, seed: int) -> str:
    """A program with a slip, with another value, cut short, mistyped, without its imports, in prose, or as it was."""
    draw = random.Random(f"program {seed} {source}")
    returns = [way for way in RETURNS for _ in range(1 if way == "loops" else 2)]
    way = draw.choice(
        ["slip"] * 22 + ["cut", "syntax", "prose", "no imports"] * 3 + ["same"] * 6 + ["nothing"] + returns
    )
    if way == "slip":
        source = ast.unparse(ast.fix_missing_locations(_Slip(draw.randrange(8)).visit(ast.parse(source))))
    elif way in RETURNS:
        source = ast.unparse(ast.fix_missing_locations(_Returned(RETURNS[way]).visit(ast.parse(source))))
    elif way == "cut":
        source = source[: draw.randrange(len(source) // 2, len(source))]
    elif way == "syntax":
        place = draw.choice([match.start() for match in re.finditer(r"[:()=\[\]]", source)])
        source = source[:place] + source[place + 1 :]
    elif way == "no imports":
        source = "\n".join(line for line in source.splitlines() if not re.match(r"(import|from) ", line))
    if way == "nothing":
        return "I am not sure how to do this."
    text = f"```python\n{source.strip()}\n```"
    return f"Here is the function:\n\n{text}\n\nIt goes through the values one by one." if way == "prose" else text


def solution(text: str, answer: str, other: str, seed: int) -> str:
    """A solution of a problem whose answer ends it: right, another's, off by a digit, cut short, or said otherwise."""
    draw = random.Random(f"solution {seed} {text}")
    way = draw.choice(["same", "other", "digit", "cut", "unit", "decimals", "nothing"])
    if way == "other":
        return _with(text, answer, other)
    if way == "digit":
        digits = [place for place, letter in enumerate(answer) if letter.isdigit()]
        if digits:
            place = draw.choice(digits)
            wrong = f"{answer[:place]}{(int(answer[place]) + 1) % 10}{answer[place + 1 :]}"
            return _with(text, answer, wrong)
    if way == "cut":
        return text[: draw.randrange(1, len(text))]
    if way == "unit" and answer.replace(",", "").isdigit():
        return _with(text, answer, f"${int(answer.replace(',', '')):,}")
    if way == "decimals" and answer.isdigit():
        return _with(text, answer, f"{answer}.00")
    return "I cannot solve this." if way == "nothing" else text


def _with(text: str, answer: str, given: str) -> str:
    """The text with another answer in the place of its last one."""
    head, replaced, tail = text.rpartition(answer)
    return f"{head}{given}{tail}" if replaced else text
