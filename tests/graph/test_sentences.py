"""What a person is told: each sentence says what was expected, what was found, and what to do about it."""

import ast
from collections.abc import Iterator

import pytest

from tests.graph.code import ROOT, our_files
from tests.sentences import lacks

SAID = ("UserError", "Refused", "Late")
SHORTEST = 25  # characters: what is shorter names a kind or a field


def sentences() -> Iterator[tuple[str, str]]:
    """(where, sentence) of every error for a person that is written out where it is raised."""
    for path in our_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in SAID:
                for text in filter(None, map(written, node.args)):
                    if len(text) >= SHORTEST and text[0] not in "{":  # that begins with a whole one
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def written(node: ast.expr) -> str:
    """A text as it stands in the code, with what is filled in by its expression; empty for no text."""
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_every_sentence_says_what_was_expected_what_was_found_and_what_to_do() -> None:
    said = list(sentences())
    assert len(said) > 250
    assert [f"{where} lacks {lacks(text)}: {text}" for where, text in said if lacks(text)] == []


@pytest.mark.parametrize("text", ["a is wrong", "expected a, got b", "expected a; do c", "a was expected, got b; do c"])
def test_what_lacks_a_part_is_told(text: str) -> None:
    assert lacks(text) and not lacks("expected a, got b; do c")
