"""The menu of the report: its pages in the papers' order, grouped."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.reporting.site import Page

OTHERS = "More tables"
# By the last part of a page's address; that of the runs, which has Table 3, by its folder.
GROUPS = {
    "": ("index", "claims"),
    "Transformer²": (
        "table1", "table2", "runs", "table4", "table5", "table5_resampled", "table6", "table7", "table8", "table9",
        "table9_resampled", "table10", "searchers", "figure5", "rewards", "curves", "dispatch", "alpha", "spectra",
    ),
    "ReFT": ("commonsense8", "arithmetic4", "glue", "alpaca_eval_judged"),
    "CS-ReFT": ("csreft", "interference", "interference4", "ablations", "gates"),
    OTHERS: (),
    "Answers": ("completions", "answers", "kinds", "further", "win_rates"),
    "Trainings": ("budgets", "learning", "parameters", "settings", "searches"),
    "Earlier": ("published",),
}  # fmt: skip


def key_of(page: Page) -> str:
    """What the groups call a page."""
    path = PurePosixPath(page.path)
    return path.parent.name if path.parent.name and path.stem == "index" else path.stem


def grouped(pages: Sequence[Page]) -> list[tuple[str, list[Page]]]:
    """The groups that have pages, each in its order; pages that no group names stand under ``OTHERS``, as they came."""
    by_key = {key_of(page): page for page in pages}
    named = {key for keys in GROUPS.values() for key in keys}
    others = [page for key, page in by_key.items() if key not in named]
    menu = [
        (name, others if name == OTHERS else [by_key[key] for key in keys if key in by_key])
        for name, keys in GROUPS.items()
    ]
    return [(name, members) for name, members in menu if members]
