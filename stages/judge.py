"""A judge's win rate of a cell's answers over the reference's, beside how often that judge agrees with GPT-4."""

from pipeline.core.artifacts import read_examples, read_json, read_jsonl, write_json
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.evaluation.judges import Judged, Judging, in_pieces, judge_of
from pipeline.model.forward.base import Compute, prepare_process
from pipeline.scoring import preference


def run(
    *,
    judge: str,
    cell: str,
    model: In,
    examples: In,
    completions: In,
    annotated: In,
    agreement: In,
    compute: Compute,
    settings: Judging,
    outputs: Out,
    annotations: Out,
    preferences: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """Judge one cell. Writes its answers and the judge's annotations as AlpacaEval does, and what the report reads."""
    prepare_process(compute)
    prompts, texts = read_examples(examples), {row["id"]: row["text"] for row in read_jsonl(completions)}
    answers = [texts[prompt.id] for prompt in prompts]
    with step(f"the judge {judge}"):
        judging = judge_of(judge, settings, model=model, compute=compute)
    with step(f"judge {len(answers)} answers"):
        pairs = [
            (prompt.meta["question"], prompt.target, answer) for prompt, answer in zip(prompts, answers, strict=True)
        ]
        judged = Judged(judge, cell, prompts, answers, in_pieces(judging, pairs, "judge", checkpoints))
    write_json(outputs, preference.outputs(judged.instructions, answers, cell))
    write_json(annotations, judged.annotations())
    with step("the instructions' difficulty"):
        difficulty = preference.difficulties(read_jsonl(annotated))
    said = read_json(agreement)
    outcome = judged.outcome(difficulty, said)
    write_json(preferences, outcome)
    agreed = preference.agreement(said["said"], said["gpt4"])
    metrics = {
        "win_rate": preference.win_rate(judged.preferences),
        "length_controlled_win_rate": outcome["length_controlled_win_rate"],
        "agreement_with_gpt4": agreed.share,
        "agreement_pairs": float(agreed.n),
    }
    show_table("win rate", [{"judge": judge, "cell": cell, **metrics}])
    return metrics


if __name__ == "__main__":
    main()
