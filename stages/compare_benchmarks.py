"""The report of benchmarks alone, for a profile without the rest of the graph: the ReFT paper's tables."""

from pipeline.core.artifacts import atomic_folder
from pipeline.core.errors import UserError
from pipeline.core.progress import show_markdown, step
from pipeline.core.stage import In, Out, main
from pipeline.reporting import compose
from pipeline.reporting import papers as names
from pipeline.reporting import read as left
from pipeline.reporting.figures import draw as figures
from pipeline.reporting.published import NO_SCORES
from pipeline.reporting.statistics import statistics
from pipeline.reporting.tables import reft
from pipeline.reporting.tables.accuracy import comparison
from pipeline.reporting.tables.further import read_judged
from pipeline.reporting.tables.heads import read_heads


def run(
    *,
    report: str,
    plan: reft.Plan,
    settings: left.RunSettings,
    examples: In,
    scores: In,
    adapters: In,
    base: In,
    published: In,
    written: Out,
) -> dict[str, object]:
    """Write the plan's tables, and those of heads and judges where there are some, with figures and claims."""
    chosen = {name: cell for name, cell in settings.cells.items() if set(plan.tables) & set(cell.table)}
    own = settings.model_copy(update={"cells": chosen})
    with step("read the cells"):
        found = left.Run(
            settings=own,
            scores=left.read_scores(own, scores) if chosen else NO_SCORES,
            examples=left.read_examples(own, examples),
            provenance=left.read_provenance([adapters]),
            base=left.read_provenance([base.parent])[f"{base.parent.name}/{base.stem}"],
            published=left.read_published(published),
        )
    with step("compare"):
        measured = statistics(found, read_judged(scores / "judged"), read_heads(scores / "heads"))
        comparisons = [comparison(key, found, measured) for key in plan.tables if key in own.tables()]
        listings = compose.reft_listings(found, measured).values()
        if not comparisons and not listings:
            raise UserError(
                f"params.yaml: expected cells of the tables {', '.join(plan.tables) or 'none'}, heads or judged cells "
                f"for '{report}', got none; add some"
            )
    files = {f"{one.key}.{suffix}": write(one) for one in comparisons for suffix, write in compose.COMPARED}
    files |= {f"{one.key}.{suffix}": write(one) for one in listings for suffix, write in compose.LISTED}
    files |= {f"{one.key}.svg": figures.accuracies(one.frame, names.ROWS, one.key) for one in comparisons}
    claims = [claim for one in comparisons for claim in one.claims]
    said = "\n".join(f"- {claim}" for claim in claims)
    with step("write"), atomic_folder(written) as folder:
        for name, text in {**files, "claims.md": f"# What may be said of {report}\n\n{said}\n"}.items():
            (folder / name).write_text(text, encoding="utf-8")
    show_markdown("claims", said)
    return {"claims": claims}


if __name__ == "__main__":
    main()
