"""The tables of an experiment on interference, and the claims it allows."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.evaluation.intervals import MEAN_OVER_TASKS
from pipeline.reporting.skills import SkillRun
from pipeline.reporting.tables.listing import Listing
from pipeline.reporting.wording import cell_text, joined, percent, signed


def interval(mean: float, low: float, high: float) -> str:
    """An accuracy with its interval, in percent."""
    return f"{percent(mean)} [{percent(low)}, {percent(high)}]"


def change(line: Mapping[Any, Any]) -> str:
    """A change in points with its interval, and the two accuracies in percent. line: of ``interference.matrix``."""
    between = f"[{signed(line['diff_low'])}, {signed(line['diff_high'])}]"
    return f"{signed(line['diff'])} {between}; {percent(line['together'])} against {percent(line['alone'])} alone"


def matrix_table(
    common: pd.DataFrame, own: pd.DataFrame, parameters: Mapping[str, int], routers: Mapping[str, int]
) -> Listing:
    """Methods by skills: change in points against the common reference, and on the mean against its own size alone.

    common, own: of ``interference.matrix``; a row that ``own`` lacks has no such reference. parameters, routers: of
    ``SkillRun``.
    """
    tasks = list(dict.fromkeys(common["task"]))
    beside = {line["row"]: change(line) for line in own[own["task"] == MEAN_OVER_TASKS].to_dict("records")}
    rows = [
        (
            row.replace("_", " "),
            parameters.get(row),
            routers.get(row),
            *(change(line) for line in common[common["row"] == row].to_dict("records")),
            beside.get(row),
        )
        for row in dict.fromkeys(common["row"])
    ]
    seeds, n = common["seeds"].max(), common.loc[common["task"] == tasks[0], "n"].max()
    reference = common["reference"].iloc[0].replace("_", " ")
    note = (
        f"Accuracy of an adapter trained on all skills less that of {reference}, the one reference for all rows, "
        f"trained on this skill alone; in points with its 95 % interval, paired over the {n} test prompts of a skill"
        + (f" and over {seeds} seeds." if seeds > 1 else ".")
        + " The last column sets each row against the same method and size trained alone."
    )
    names = (*(task.replace("_", " ") for task in tasks), "mean, against its own size alone")
    columns = ("trained together", "parameters", "router’s", *names)
    return Listing("interference", "Interference: what training skills together costs each", columns, tuple(rows), note)


def router_table(
    run: SkillRun, estimates: Mapping[str, Sequence[float]], against: Mapping[str, Mapping[str, Any]]
) -> Listing:
    """Each variant of CS-ReFT: its mean accuracy, that beside the first variant's, and how its gates are used.

    estimates: row to its mean accuracy over its skills, with the interval. against: row to
    ``pipeline.evaluation.interference.advantage`` over the first.
    """
    rows = []
    for row, numbers in estimates.items():
        gates = run.gates[row]
        used = "; ".join(f"{skill}: {' '.join(f'{gate:.2f}' for gate in gates.loc[skill])}" for skill in gates.index)
        rows.append((row.replace("_", " "), run.parameters[row], interval(*numbers), over(against.get(row)), used))
    first = next(iter(estimates)).replace("_", " ")
    note = (
        f"Each differs from {first} in what it is called by. Mean gate of each subspace on held-out prompts of each "
        "skill: 0 is closed, 1 is open."
    )
    columns = ("CS-ReFT", "parameters", "mean over skills", f"against {first}", "gates, by skill")
    return Listing("router", "The router, and what else CS-ReFT is made of", columns, tuple(rows), note)


def over(difference: Mapping[str, Any] | None) -> str | None:
    """A difference in points with its interval and verdict; None where there is none."""
    if difference is None:
        return None
    between = f"[{signed(difference['diff_low'])}, {signed(difference['diff_high'])}]"
    return f"{signed(difference['diff'])} {between} {difference['verdict']}"


def growth_table(
    run: SkillRun, shared: Mapping[str, Sequence[float]], whole: Mapping[str, Sequence[float]], tasks: Sequence[str]
) -> Listing:
    """Rows with ever more skills trained together.

    shared: row to its mean accuracy, with the interval, on the skills ``tasks`` that every row has. whole: on its own.
    """
    rows = [
        (
            row.replace("_", " "),
            len(run.provenance[row]["tasks"]),
            run.parameters[row],
            interval(*shared[row]),
            interval(*whole[row]),
        )
        for row in shared
    ]
    columns = ("trained together", "skills", "parameters", f"mean on {' and '.join(tasks)}", "mean on all its skills")
    return Listing("growth", "Ever more skills in one adapter", columns, tuple(rows))


def added_table(run: SkillRun, matrix: pd.DataFrame, added: Mapping[str, str]) -> Listing:
    """What a skill that was added later changed for the old ones. added: row to the row before."""
    rows = []
    for line in matrix.to_dict("records"):
        keys = [key for key in run.texts if key[0] == line["row"] and key[1] == line["task"]]
        if keys:
            pairs = [
                pair
                for row, task, seed in keys
                for pair in zip(run.texts[row, task, seed], run.texts[added[row], task, seed], strict=True)
            ]
            changed = sum(after != before for after, before in pairs)
            rows.append((line["row"].replace("_", " "), line["task"], change(line), f"{changed} of {len(pairs)}"))
    columns = ("after", "old skill", "change against before", "answers that differ")
    return Listing("added", "A skill added later, old subspaces frozen", columns, tuple(rows))


# ---- claims ---------------------------------------------------------------------------------------------------------


def answer(
    first: str, found: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, tuple[int, int]], reference: str
) -> str:
    """Whether a method suffers less interference than others of its size, worded by the intervals alone.

    found: of each other method, the contrast of the first with it on the common ``reference``, see
    ``pipeline.evaluation.interference.contrast``. sizes: row to its parameters without a router, and the router's.
    """
    words = {"better": "less than", "worse": "more than", "undecided": "not told apart from"}
    verdicts = {str(contrast["verdict"]) for contrast in found.values()}
    if verdicts == {"better"}:
        head = "Yes"
    elif "better" in verdicts:
        head = "In part"
    else:
        head = "No" if "worse" in verdicts else "Not shown"
    parts = [
        f"{words[str(one['verdict'])]} {name.replace('_', ' ')} ({signed(one['diff'])} points, 95 % interval "
        f"{signed(one['diff_low'])} to {signed(one['diff_high'])})"
        for name, one in found.items()
    ]
    counted = [
        f"{row.replace('_', ' ')} {cell_text(own)}" + (f" and a router of {cell_text(router)}" if router else "")
        for row, (own, router) in sizes.items()
    ]
    sample = next(iter(found.values()))
    seeds = f", {sample['seeds']} seeds" if sample["seeds"] > 1 else ""
    names = joined([name.replace("_", " ") for name in found])
    return (
        f"Does {first.replace('_', ' ')} suffer less interference than {names} of its size? {head}: {joined(parts)}, "
        f"on the one reference {reference.replace('_', ' ')} (n = {cell_text(sample['n'])}{seeds}; parameters: "
        f"{', '.join(counted)})."
    )


def claim(contrast: Mapping[str, Any], pair: Sequence[str]) -> str:
    """Whether the first of two methods loses less than the second, each against its own size alone, by the interval."""
    words = {"better": "loses less", "worse": "loses more", "undecided": "is not shown to lose less"}
    first, second = (name.replace("_", " ") for name in pair)
    between = f"95 % interval {signed(contrast['diff_low'])} to {signed(contrast['diff_high'])}"
    return (
        f"Against the same method and size trained alone, {first} {words[str(contrast['verdict'])]} than {second}: its "
        f"change by training together is {signed(contrast['diff'])} points beside the other's ({between}, n = "
        f"{cell_text(contrast['n'])})."
    )


def advantage_claim(advantage: Mapping[str, Any], pair: Sequence[str]) -> str:
    """Which of two methods trained on all skills is the more accurate, by the interval alone."""
    first, second = (name.replace("_", " ") for name in pair)
    words = {"better": "is more accurate than", "worse": "is less accurate than", "undecided": "is not told apart from"}
    between = f"95 % interval {signed(advantage['diff_low'])} to {signed(advantage['diff_high'])}"
    return (
        f"Trained on all skills, {first} {words[str(advantage['verdict'])]} {second}: {signed(advantage['diff'])} "
        f"points on the mean over skills ({between}, n = {cell_text(advantage['n'])})."
    )


def matrix_claims(matrix: pd.DataFrame, reference: str) -> list[str]:
    """For each method, on which skills training together is worse, better or undecided against the common reference."""
    sentences = []
    for row, part in matrix[matrix["task"] != MEAN_OVER_TASKS].groupby("row", sort=False):
        groups = {word: list(part.loc[part["verdict"] == word, "task"]) for word in ("worse", "better", "undecided")}
        parts = [f"{word} on {joined(tasks)}" for word, tasks in groups.items() if tasks]
        name, other = str(row).replace("_", " "), reference.replace("_", " ")
        sentences.append(f"{name} trained together is, against {other}, {', '.join(parts)}.")
    return sentences
