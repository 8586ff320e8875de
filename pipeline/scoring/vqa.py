"""Answers to questions about pictures that ten people have answered: VQA accuracy (Antol et al., arXiv 1505.00468).

An answer is worth what the people say who gave it: a third for each, up to 1, as a mean over all ways to leave one of
them out. Before they are compared, answers are brought to one form, as the evaluation of VQA and TextVQA does it: small
letters, no articles, small numbers as digits, punctuation gone or turned into spaces, apostrophes where they belong.
"""

import re
from collections.abc import Sequence
from statistics import fmean

from pipeline.core.types import Score

AGREEING = 3  # people whose word is enough
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COUNTED = "zero one two three four five six seven eight nine ten"
NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_COUNTED.split())}}
ARTICLES = frozenset({"a", "an", "the"})
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've "
    "we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's "
    "who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've "
    "you'll you're you've"
)
# A contraction that lacks one apostrophe, and how it is meant. The evaluation turns one pair around.
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTED.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}
_THOUSANDS = re.compile(r"(?<=\d),+(?=\d)")
_FULL_STOP = re.compile(r"\.(?!\d)")
_FULL_STOPS = 32  # of one answer, that are taken out


def normal(answer: str) -> str:
    """An answer in the form in which answers are compared."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    grouped = _THOUSANDS.search(text) is not None
    bare = text
    for mark in PUNCTUATION:
        apart = f"{mark} " in text or f" {mark}" in text  # at the edge of a word it goes, within one it parts it
        bare = bare.replace(mark, "" if apart or grouped else " ")
    bare = _FULL_STOP.sub("", bare, count=_FULL_STOPS)
    words = [NUMBERS.get(word, word) for word in bare.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def accuracy(answer: str, people: Sequence[str]) -> float:
    """The VQA accuracy of an answer, in [0, 1]. people: what each of them answered."""
    said, given = normal(answer), [normal(one) for one in people]
    others = (given[:place] + given[place + 1 :] for place in range(len(given)))
    return fmean(min(1.0, several.count(said) / AGREEING) for several in others) if given else 0.0


def score(id: str, answer: str, people: Sequence[str]) -> Score:
    """``correct``, which is the reward, where at least half of the accuracy is reached."""
    value = accuracy(answer, people)
    said = normal(answer)
    return Score(id, value, value >= 0.5, said or None, marked=bool(said))
