"""The form of a sentence for a person: what was expected, what was found, and what to do about it."""

FOUND = ("got", "but", "which", "found", "whose")  # what leads to what is there
FILLED = ("{misfit}", "{'; '.join(wrong)}")  # expressions that say themselves what is there


def lacks(text: str) -> str:
    """What a sentence lacks; empty if it has all."""
    expected, _, rest = text.partition("expected ")
    if not rest or not (len(expected) < 40 or expected.endswith(": ")):  # what it is about may stand before
        return "what was expected"
    found, _, remedy = rest.rpartition("; ")
    words = found.replace(":", " ").replace(",", " ").split()
    if not found or not (set(FOUND) & {*words} or any(filled in found for filled in FILLED)):
        return "what was found"
    return "" if remedy else "what to do"
