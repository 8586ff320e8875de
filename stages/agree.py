"""How often a judge prefers the answer that GPT-4 preferred, which is what its preferences are worth."""

import random

from pipeline.core.artifacts import read_jsonl, write_json
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.evaluation.judges import Judging, in_pieces, judge_of
from pipeline.model.forward.base import Compute, prepare_process
from pipeline.scoring import preference


def run(
    *,
    judge: str,
    model: In,
    annotated: In,
    compute: Compute,
    settings: Judging,
    agreement: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """Judge pairs that GPT-4 has annotated. Writes what the judge and GPT-4 prefer, for every pair."""
    prepare_process(compute)
    known = [row for row in read_jsonl(annotated) if preference.preference(row) in (1.0, 2.0)]
    if len(known) < settings.pairs:
        raise UserError(f"expected {settings.pairs} annotated pairs, got {len(known)} in {annotated}; ask for fewer")
    drawn = random.Random(settings.seed).sample(known, settings.pairs)
    with step(f"the judge {judge}"):
        judging = judge_of(judge, settings, model=model, compute=compute)
    with step(f"judge {len(drawn)} annotated pairs"):
        pairs = [(row["instruction"], row["output_1"], row["output_2"]) for row in drawn]
        said = in_pieces(judging, pairs, "agree", checkpoints)
    gpt4 = [preference.preference(row) for row in drawn]
    write_json(agreement, {"judge": judge, "said": said, "gpt4": gpt4})
    agreed = preference.agreement(said, gpt4)
    metrics = {"agreement_with_gpt4": agreed.share, "pairs": float(agreed.n), "draws": float(agreed.drawn)}
    show_table("agreement", [{"judge": judge, **metrics}])
    return metrics


if __name__ == "__main__":
    main()
