"""The papers' claims: the list of ``data/published/claims.yaml``, and how a run's numbers judge one of them.

A claim says that rows of a table do better than others, or that something which is counted is small. Its evidence is a
list of lines (``pipeline.reporting.evidence``), one for each pair of rows and each task, or one for each pair on the
mean over its tasks. A line speaks for the claim if its 95 % interval lies above zero, against it if the interval lies
below, and is undecided otherwise; its verdict may be withheld. The claim's rule joins them (``join``). Effects are in
the direction of the claim: above zero speaks for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pipeline.core.errors import UserError
from pipeline.evaluation.joint import Effect
from pipeline.evaluation.verdicts import BETTER, NOT_INTERPRETABLE, NOT_TRAINED, UNDECIDED, WORSE
from pipeline.reporting.papers import row_name
from pipeline.reporting.wording import joined, signed

FILE = "data/published/claims.yaml"
PAPERS = {
    "transformer2": "Transformer² (arXiv 2501.06252)",
    "reft": "ReFT (arXiv 2404.03592)",
    "csreft": "CS-ReFT (arXiv 2503.10617)",
}
WITHHELD = (NOT_TRAINED, NOT_INTERPRETABLE)
# What is said of a claim; UNDECIDED and NOT_INTERPRETABLE, too.
HOLDS, DOES_NOT_HOLD, NOT_MEASURED = "holds", "does not hold", "not measured"
VERDICTS = (HOLDS, DOES_NOT_HOLD, UNDECIDED, NOT_INTERPRETABLE, NOT_MEASURED)
BASE = "base"
SPELLED = {"svf": "SVF", "lora": "LoRA", "dora": "DoRA", "ia3": "(IA)³", "loreft": "LoReFT", "direft": "DiReFT"}
SPELLED |= {"glue": "GLUE", "mlp": "MLP", "mlps": "MLPs", "gpt": "GPT"}
SIGNIFICANT = 0.05  # of a p, as an interval of 95 %
COUNTED = ("parameters", "seconds", "spectra")  # tables whose numbers are compared with ``at_most``

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class Pair(NamedTuple):
    """Two rows of a table: the first is claimed to be better than the second."""

    first: str
    second: str

    @property
    def turned(self) -> bool:
        """Whether it is measured the other way round: the base model is what others are compared with."""
        return self.first == BASE

    @property
    def measured(self) -> tuple[str, str]:
        """The row, and the one that it is compared with."""
        return (self.second, self.first) if self.turned else (self.first, self.second)


class Claim(BaseModel):
    """One claim; the head of ``data/published/claims.yaml`` says what each field is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)+$")
    paper: Literal["transformer2", "reft", "csreft"]
    place: str
    says: str
    table: Names = ()
    pairs: tuple[tuple[Names, Names], ...] = ()
    tasks: Names = ()
    rule: Literal["all", "most", "some", "mean"] = "all"
    margin: float = Field(default=0.0, ge=0)
    at_most: float | None = None
    modules: tuple[str, ...] = ()
    top: float | None = None
    within: tuple[str, ...] = ()
    note: str = ""
    unmeasured: str = ""

    @model_validator(mode="after")
    def whole(self) -> Self:
        """What is judged needs a table, and what is counted a bound."""
        if bool(self.table) == bool(self.unmeasured):
            raise ValueError("expected either a table or why it is unmeasured")
        if set(self.table) & set(COUNTED) and self.at_most is None:
            raise ValueError(f"expected 'at_most' for the table '{self.table[0]}'")
        return self

    @property
    def judged_by(self) -> str:
        """When it holds, in words; empty where no pairs are joined."""
        several = (
            "each pair, on the mean over its tasks, does" if len(self.pairs) > 1 else "the mean over its tasks does"
        )
        words = {"mean": several, **{rule: f"{rule} of its pairs and tasks do" for rule in ("all", "most", "some")}}
        return f"holds if {words[self.rule]}" if self.pairs and not set(self.table) <= set(COUNTED) else ""

    @property
    def name(self) -> str:
        """What it is called in a figure."""
        return " ".join(SPELLED.get(word, word) for word in self.id.split("-")[1:])

    def among(self, rows: Iterable[str]) -> list[Pair]:
        """Its pairs of which some rows have both; of several names of a row the first counts."""
        known = set(rows)
        found = [[next((name for name in names if name in known), None) for names in pair] for pair in self.pairs]
        return [Pair(first, second) for first, second in found if first and second]

    def tasks_of(self, groups: Mapping[str, Sequence[str]], there: Iterable[str]) -> list[str]:
        """Its tasks among those that are there. groups: ``trained`` and ``unseen``, each to its tasks."""
        wanted = [task for name in self.tasks for task in groups.get(name, [name])]
        return [task for task in there if not self.tasks or task in wanted]


@dataclass(frozen=True)
class Line:
    """What one pair came to on a task, or on the mean over tasks.

    effect: in the direction of the claim; what is counted is given as it is. reason: why the verdict is withheld.
    p: two-sided, that the effect is zero, where it is known.
    """

    pair: Pair
    task: str
    effect: Effect
    word: str
    seeds: int | None = None
    reason: str = ""
    p: float | None = None


@dataclass(frozen=True)
class Judged:
    """What a run says of a claim.

    table: that it was judged by. effect: over all lines; None where nothing was measured. asked: how many pairs the
    claim is about. reason: why it is not measured.
    """

    claim: Claim
    verdict: str
    table: str = ""
    lines: tuple[Line, ...] = ()
    effect: Effect | None = None
    reason: str = ""

    @property
    def seeds(self) -> int | None:
        """The least number of seeds of any line."""
        return min((line.seeds for line in self.lines if line.seeds is not None), default=None)

    @property
    def counted(self) -> bool:
        """Whether its numbers are compared with a bound, and not with zero."""
        return self.claim.at_most is not None

    @property
    def effect_text(self) -> str:
        """The effect as a person reads it."""
        if self.effect is None:
            return ""
        if self.counted:
            return f"{self.effect.mean:.3g} (claimed: at most {self.claim.at_most:g})"
        text = signed(self.effect.mean)
        if self.effect.low is not None and self.effect.high is not None:
            text += f" [{signed(self.effect.low)}, {signed(self.effect.high)}]"
        return text + (f", margin {signed(-self.claim.margin)}" if self.claim.margin else "")

    @property
    def sample(self) -> str:
        """How much it rests on: ``n = 600, 3 seeds``."""
        parts = [] if self.effect is None or self.effect.n is None else [f"n = {self.effect.n}"]
        parts += [] if self.seeds is None else [f"{self.seeds} seed" + ("s" if self.seeds > 1 else "")]
        return ", ".join(parts)

    @property
    def details(self) -> str:
        """What each pair came to, by task, why verdicts are withheld, and what the run has no row for."""
        pairs = list(dict.fromkeys(line.pair for line in self.lines))
        parts = [self._pair(pair) for pair in pairs]
        if self.claim.pairs and pairs and len(pairs) < len(self.claim.pairs):
            parts.append(f"Compared: {len(pairs)} of {len(self.claim.pairs)} pairs.")
        return " ".join(parts)

    def _pair(self, pair: Pair) -> str:
        lines = [line for line in self.lines if line.pair == pair]
        told = counted_lines(lines) if self.counted else spelled(lines, self.claim.margin > 0)
        return f"{row_name(pair.first)} against {row_name(pair.second)}: {'; '.join(told)}."

    @property
    def sentence(self) -> str:
        """The claim, what is said of it, and by which numbers."""
        numbers = f" ({', '.join(part for part in (self.effect_text, self.sample) if part)})" if self.effect else ""
        said = f"{self.claim.says.removesuffix('.')}: {self.verdict}{numbers}."
        return " ".join(part for part in (said, self.details or self.reason) if part)


def counted_lines(lines: Sequence[Line]) -> list[str]:
    """``0.13 on math``."""
    return [f"{line.effect.mean:.3g}" + (f" on {line.task}" if line.task else "") for line in lines]


def spelled(lines: Sequence[Line], margin: bool) -> list[str]:
    """``better on sums and oldest``, ``undecided on functions at n = 200``, ``not interpretable on math (9 % cut)``.

    margin: whether the first may lie behind the second by some points.
    """
    words = {BETTER: "within the margin", WORSE: "behind by more than the margin"} if margin else {}
    parts = []
    for word in (BETTER, WORSE, UNDECIDED, *WITHHELD):
        for reason in dict.fromkeys(line.reason for line in lines if line.word == word):
            same = [line for line in lines if (line.word, line.reason) == (word, reason)]
            counts = sorted({line.effect.n for line in same if line.effect.n is not None})
            tail = f" at n = {joined([str(n) for n in counts])}" if word == UNDECIDED and counts else ""
            tail += f" ({reason})" if reason else ""
            parts.append(f"{words.get(word, word)} on {joined([line.task.replace('_', ' ') for line in same])}{tail}")
    return parts


# ---- the list --------------------------------------------------------------------------------------------------------


def read_claims(published: Mapping[str, Any]) -> tuple[Claim, ...]:
    """The claims among the papers' files, as ``pipeline.reporting.read.read_published`` returns them."""
    listed = published.get("claims") or ()
    try:
        claims = TypeAdapter(tuple[Claim, ...]).validate_python(listed)
    except ValidationError as error:
        first = error.errors()[0]
        number, *place = first["loc"] or ("",)
        about = listed[number] if isinstance(number, int) else {}
        name = f"the claim '{about.get('id', number)}'" if isinstance(about, dict) else f"entry {number}"
        where = f" at '{'.'.join(str(part) for part in place)}'" if place else ""
        problem = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise UserError(
            f"expected claims of their form in {FILE}, but {name} does not fit{where}: {problem[0].lower()}"
            f"{problem[1:]}{got}; correct it"
        ) from None
    for number, claim in enumerate(claims):
        if any(other.id == claim.id for other in claims[:number]):
            raise UserError(
                f"{FILE}: expected every claim to have an id of its own, got '{claim.id}' twice; rename one"
            )
    return claims


def references(claims: Iterable[Claim], table: str, rows: Iterable[str]) -> dict[str, list[str]]:
    """What the claims on a table compare: each row that others are compared with, to those others."""
    rows = list(rows)
    compared: dict[str, list[str]] = {}
    for claim in claims:
        for pair in claim.among(rows) if table in claim.table else ():
            row, reference = pair.measured
            others = compared.setdefault(reference, [])
            others += [] if row in others else [row]
    return compared


# ---- judging ---------------------------------------------------------------------------------------------------------


def word_of(effect: Effect, margin: float = 0.0) -> str:
    """What a line says by its interval alone. margin: how far below zero still speaks for the claim."""
    if effect.low is None or effect.high is None:
        raise ValueError("expected an interval")
    if effect.low > -margin:
        return BETTER
    return WORSE if effect.high < -margin else UNDECIDED


def join(rule: str, lines: Sequence[Line]) -> str:
    """What lines together say of a claim.

    ``all`` and ``mean`` hold if every line speaks for the claim, and do not if one speaks against it. ``most`` holds if
    more than half speak for it, and does not if half or more speak against it. ``some`` holds if one speaks for it even
    among so many tries (Bonferroni: its p times their number is at most 0.05), and does not if all speak against it.
    Where neither is so and a line could not be interpreted (for ``most``: half of them), neither can the claim;
    otherwise it is undecided. A line whose training kept its start is neither for nor against.
    """
    words = [line.word for line in lines]
    better, worse, withheld = (words.count(word) for word in (BETTER, WORSE, NOT_INTERPRETABLE))
    if not words:
        return NOT_MEASURED
    if rule == "most":
        holds, fails, unclear = 2 * better > len(words), 2 * worse >= len(words), 2 * withheld >= len(words)
    elif rule == "some":
        sure = [line for line in lines if line.word == BETTER and (line.p or 0.0) * len(lines) <= SIGNIFICANT]
        holds, fails, unclear = bool(sure), worse == len(words), withheld > 0
    else:
        holds, fails, unclear = better == len(words), worse > 0, withheld > 0
    if holds or fails:
        return HOLDS if holds else DOES_NOT_HOLD
    return NOT_INTERPRETABLE if unclear else UNDECIDED


def sentences(judged: Iterable[Judged], table: str) -> tuple[str, ...]:
    """A sentence for each claim that was judged by a table."""
    return tuple(one.sentence for one in judged if one.table == table and one.lines)


def counts(judged: Iterable[Judged]) -> dict[str, int]:
    """How many claims have each verdict, under names for metrics.json."""
    verdicts = [one.verdict for one in judged]
    return {verdict.replace(" ", "_"): verdicts.count(verdict) for verdict in VERDICTS}
