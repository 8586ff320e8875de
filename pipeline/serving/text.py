"""An answer's text while it is being written: what may be told, and whether it is over."""

from collections.abc import Sequence

from pipeline.model.forward.base import Base

BROKEN = "\ufffd"  # what half a character is decoded to


class Text:
    """The text of token ids as they come.

    A piece is told as soon as it is sure: not while it ends inside a character, and not while it could be the
    beginning of a text at which the answer is to stop. stop: those texts, none of them empty.
    """

    def __init__(self, base: Base, stop: Sequence[str] = ()) -> None:
        self._base, self._stop = base, stop
        self._ids: list[int] = []
        self._told_from = self._read_to = 0  # places in the ids: where decoding begins, and up to where it is done
        self._held = ""  # decoded, and perhaps the beginning of a stop
        self.told = ""
        self.stopped = False

    def add(self, token: int, *, last: bool = False) -> str:
        """What may be told now that this token was written. last: no other follows, so that nothing is held back."""
        self._ids.append(token)
        self._held += self._decoded(last)
        ends = [place for place in (self._held.find(stop) for stop in self._stop) if place >= 0]
        if ends:
            self.stopped = True
            piece, self._held = self._held[: min(ends)], ""
        else:
            sure = len(self._held) if last else len(self._held) - self._begun()
            piece, self._held = self._held[:sure], self._held[sure:]
        self.told += piece
        return piece

    def _decoded(self, last: bool) -> str:
        before = self._base.text(self._ids[self._told_from : self._read_to])
        now = self._base.text(self._ids[self._told_from :])
        if not last and (len(now) <= len(before) or now.endswith(BROKEN)):
            return ""
        # From here on only the last piece is decoded again: a tokenizer may join a token to the one before it.
        self._told_from, self._read_to = self._read_to, len(self._ids)
        return now[len(before) :]

    def _begun(self) -> int:
        """How many of the last characters could be the beginning of a stop."""
        longest = min(len(self._held), max((len(stop) for stop in self._stop), default=1) - 1)
        beginnings = range(longest, 0, -1)
        return next((size for size in beginnings if any(stop.startswith(self._held[-size:]) for stop in self._stop)), 0)
