"""What a run says of the papers' claims: one sentence a claim, worded by the intervals alone.

A difference is better or worse if its 95 % interval leaves out zero; otherwise it is undecided at this number of
examples. A claim about several tasks holds if every difference is better, does not hold if one is worse, and is not
settled otherwise.
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from pipeline.reporting.papers import claims_for, row_name
from pipeline.reporting.wording import signed

# The row that a table's claim compares with, beside the base model: table -> row.
RIVALS = {"table1": "lora", "table4": "svf", "table7": "svf", "csreft": "loreft"}
RIVALS |= {"commonsense8": "lora", "arithmetic4": "lora"}
STRATEGIES = ("prompt", "classifier", "few_shot")


def joined(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"


def lines_of(frame: pd.DataFrame, row: str, tasks: Iterable[str]) -> pd.DataFrame:
    """The lines of a row on some tasks that are compared with the reference."""
    return frame[(frame["row"] == row) & frame["task"].isin(list(tasks)) & frame["verdict"].notna()]


def verdicts(frame: pd.DataFrame, row: str, tasks: Iterable[str]) -> dict[str, str]:
    """Task to verdict; empty where the row or what it is compared with is missing."""
    lines = lines_of(frame, row, tasks)
    return dict(zip(lines["task"], lines["verdict"], strict=True))


def spelled(frame: pd.DataFrame, row: str, tasks: Iterable[str]) -> str:
    """``better on sums and oldest, undecided on functions at n = 200``; nothing where nothing is compared."""
    by_task = verdicts(frame, row, tasks)
    groups = {
        word: [task for task, verdict in by_task.items() if verdict == word]
        for word in ("better", "worse", "undecided")
    }
    text = ", ".join(f"{word} on {joined(tasks)}" for word, tasks in groups.items() if tasks)
    counts = sorted({int(n) for n in lines_of(frame, row, groups["undecided"])["n"]})
    return text + (f" at n = {joined([str(n) for n in counts])}" if counts else "")


def settled(verdicts: Iterable[str]) -> str:
    """What some verdicts together say of a claim."""
    words = set(verdicts)
    if words == {"better"}:
        return "holds"
    return "does not hold" if "worse" in words else "is not settled"


def overall(frame: pd.DataFrame, row: str, domains: Mapping[str, str]) -> tuple[str, str] | None:
    """The verdict on the mean over tasks, and that verdict with its difference and interval in percentage points."""
    lines = frame[(frame["row"] == row) & ~frame["task"].isin(list(domains)) & frame["verdict"].notna()]
    if lines.empty:
        return None
    line = lines.iloc[0]
    word = line["verdict"] + (f" at n = {int(line['n'])}" if line["verdict"] == "undecided" else "")
    interval = f"95 % interval {signed(line['diff_low'])} to {signed(line['diff_high'])}"
    return line["verdict"], f"{word} on the mean over tasks ({signed(line['diff'])} points, {interval})"


def claims_of(
    key: str, versus_base: pd.DataFrame, versus_rival: pd.DataFrame, domains: Mapping[str, str]
) -> tuple[str, ...]:
    """The sentences on the paper's claims for a table; none for a table that no paper has.

    versus_base, versus_rival: the table's rows against the base model, and against the row ``RIVALS`` names.
    domains: task to domain.
    """
    if key == "table1":
        return table1_claims(versus_base, versus_rival, domains)
    if key == "table2":
        return table2_claims(versus_base, domains)
    if key == "table7":
        return table7_claims(versus_base, versus_rival, domains)
    return csreft_claims(versus_base, versus_rival, domains) if key == "csreft" else ()


def table1_claims(versus_base: pd.DataFrame, versus_lora: pd.DataFrame, domains: Mapping[str, str]) -> tuple[str, ...]:
    base = spelled(versus_base, "svf", domains)
    if not base:
        return ("This run has no SVF expert beside the base model, so it says nothing of the paper's Table 1.",)
    word = settled(verdicts(versus_base, "svf", domains).values())
    lora = spelled(versus_lora, "svf", domains) or "not compared"
    return (
        f"The paper's claim that an SVF expert improves on the base model on every task {word} in this run: {base}.",
        f"Against LoRA, ahead on two of three tasks in the paper, SVF is here {lora}.",
    )


def table2_claims(versus_base: pd.DataFrame, domains: Mapping[str, str]) -> tuple[str, ...]:
    by_row = {row: by_task for row in STRATEGIES if (by_task := verdicts(versus_base, row, domains))}
    if not by_row:
        return (
            "This run has no adaptation strategy beside the base model, so it says nothing of the paper's Table 2.",
        )
    every = settled(verdict for by_task in by_row.values() for verdict in by_task.values())
    claims = [
        "The paper's claim that every adaptation strategy improves on the base model on every unseen task "
        f"{every} in this run."
    ]
    claims += [f"{row_name(row)}, against the base model: {spelled(versus_base, row, domains)}." for row in by_row]
    if lora := spelled(versus_base, "best_lora", domains):
        claims.append(f"The best LoRA expert, in the paper behind the base model on two of three: {lora}.")
    return tuple(claims)


def table7_claims(versus_base: pd.DataFrame, versus_svf: pd.DataFrame, domains: Mapping[str, str]) -> tuple[str, ...]:
    others = [row for row in dict.fromkeys(versus_base["row"]) if row not in ("base", "svf")]
    by_row = {row: verdicts(versus_svf, row, domains) for row in others}
    turned = {"better": "worse", "worse": "better", "undecided": "undecided"}  # what SVF is, against the row
    words = [turned.get(verdict, verdict) for by_task in by_row.values() for verdict in by_task.values()]
    if not words:
        return ("This run has no SVF expert beside other tuning, so it says nothing of the paper's Table 7.",)
    claims = [
        "The paper has SVF ahead of DoRA on all three tasks they are trained on and of (IA)³ on two; that it is ahead "
        f"of every other tuning on all of them {settled(words)} in this run."
    ]
    claims += [
        f"{row_name(row)}, against the SVF expert: {spelled(versus_svf, row, domains)}."
        for row in others
        if by_row[row]
    ]
    claims += [
        f"{row_name(row)}, against the base model: {text}."
        for row in others
        if (text := spelled(versus_base, row, domains))
    ]
    return tuple(claims)


def csreft_claims(
    versus_base: pd.DataFrame, versus_loreft: pd.DataFrame, domains: Mapping[str, str]
) -> tuple[str, ...]:
    each = verdicts(versus_loreft, "csreft", domains)
    if mean := overall(versus_loreft, "csreft", domains):
        word, said = settled([mean[0]]), mean[1]
    elif each:
        word, said = settled(each.values()), spelled(versus_loreft, "csreft", domains)
    else:
        return ("This run has no CS-ReFT beside a shared LoReFT, so it says nothing of the paper's claim.",)
    mean = overall(versus_base, "csreft", domains)
    base = mean[1] if mean else spelled(versus_base, "csreft", domains) or "not compared"
    return (
        f"The paper's claim that composed subspaces do better than one shared edit {word} in this run: against one "
        f"shared LoReFT, CS-ReFT is {said}.",
        f"Against the base model, CS-ReFT is {base}.",
    )


def dispatch_claim(versus_prompt: pd.DataFrame) -> str:
    """Whether the classification expert names the right domain more often than the prompt does."""
    by_group = verdicts(versus_prompt, "classifier", ("trained", "unseen"))
    if not by_group:
        return "This run has not got both dispatchers, so they are not compared."
    counts = {line["task"]: int(line["n"]) for line in versus_prompt.to_dict("records")}
    groups = {"trained": "the trained tasks", "unseen": "the unseen tasks"}
    words = {"better": "more often than", "worse": "less often than", "undecided": "not provably more often than"}
    parts = [
        f"on {groups[group]} {words[word]} the prompt" + (f" (n = {counts[group]})" if word == "undecided" else "")
        for group, word in by_group.items()
    ]
    verb = "beats" if settled(by_group.values()) == "holds" else "does not, on all of them, beat"
    return f"The classification expert {verb} the prompt: it names the right domain {joined(parts)}."


def variant_claims(
    key: str, versus_base: pd.DataFrame, versus: Mapping[str, pd.DataFrame], domains: Mapping[str, str]
) -> tuple[str, ...]:
    """A sentence for every claim of ``papers.CLAIMS`` that the run has the rows for.

    versus: each row of ``rivals_for`` that the table has, to the table's rows against it.
    """
    sentences = []
    for claim in claims_for(key):
        words: list[str] = []
        parts = []
        for row, rival in claim.pairs:
            frame = versus_base if rival == "base" else versus.get(rival)
            if frame is not None and (by_task := verdicts(frame, row, domains)):
                words += by_task.values()
                parts.append(f"{row_name(row)} against {row_name(rival)}: {spelled(frame, row, domains)}")
        if parts and claim.open:
            sentences.append(f"{claim.says}. {'; '.join(parts)}.")
        elif parts:
            word = settled(words)
            sentences.append(f"The paper's claim that {claim.says} {word} in this run. {'; '.join(parts)}.")
    return tuple(sentences)
