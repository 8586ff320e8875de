"""An answer's text is told as soon as it is sure, and ends before the first stop."""

import random
from types import SimpleNamespace

import pytest

from pipeline.serving.text import Text

# A vocabulary of bytes: half a character is decoded to U+FFFD, as byte-level tokenizers do.
BASE = SimpleNamespace(text=lambda ids: bytes(ids).decode(errors="replace"))


def write(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """The pieces that are told of a text written byte by byte, and whether a stop ended it."""
    written, ids, pieces = Text(BASE, stop), text.encode(), []
    for place, id_ in enumerate(ids, start=1):
        pieces.append(written.add(id_, last=place == len(ids)))
        if written.stopped:
            break
    assert "".join(pieces) == written.told
    return [piece for piece in pieces if piece], written.stopped


def test_without_stops_every_character_is_a_piece_and_none_is_broken():
    assert write("aé日😀!") == (["a", "é", "日", "😀", "!"], False)


@pytest.mark.parametrize(
    ("text", "stop", "told", "stopped"),
    [
        ("one###two", ("###",), "one", True),
        ("one##two", ("###",), "one##two", False),
        ("one##", ("###",), "one##", False),
        ("###", ("###",), "", True),
        ("a\n\nb", ("\n\n",), "a", True),
        ("aab", ("ab",), "a", True),
        ("abcd", ("cd", "bc"), "a", True),
        ("日本語", ("本",), "日", True),
        ("no stop here", ("x", "zz"), "no stop here", False),
    ],
)
def test_the_first_stop_ends_the_text_and_is_not_told(text, stop, told, stopped):
    pieces, ended = write(text, stop)
    assert ("".join(pieces), ended) == (told, stopped)


def test_what_could_begin_a_stop_is_held_back_until_it_is_known():
    written = Text(BASE, ("END",))
    assert [written.add(id_) for id_ in b"aEb"] == ["a", "", "Eb"]
    assert [written.add(id_) for id_ in b"EN"] == ["", ""]
    assert written.add(ord("x"), last=True) == "ENx"


def test_any_text_and_stops_end_where_a_search_in_the_whole_text_says():
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(draw.choices("abé", k=draw.randint(1, 12)))
        stop = tuple("".join(draw.choices("abé", k=draw.randint(1, 3))) for _ in range(draw.randint(0, 3)))
        # The end of the stop that is whole first decides, and of those that end together the one that begins first.
        ends = [
            (end, text[:end].rfind(word))
            for word in stop
            for end in range(1, len(text) + 1)
            if text[:end].endswith(word)
        ]
        told = text[: min(ends)[1]] if ends else text
        pieces, stopped = write(text, stop)
        assert ("".join(pieces), stopped) == (told, bool(ends)), (text, stop)
