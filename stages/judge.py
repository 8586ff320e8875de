"""A judge's win rate of a cell's answers over the reference's, beside how often that judge agrees with GPT-4."""

from pipeline.core.artifacts import read_examples, read_json, read_jsonl, write_json
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.evaluation.judges import Judging, in_pieces, judge_of
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
    prompts, answers = read_examples(examples), {row["id"]: row["text"] for row in read_jsonl(completions)}
    instructions = [prompt.meta["question"] for prompt in prompts]
    texts = [answers[prompt.id] for prompt in prompts]
    with step(f"the judge {judge}"):
        judging = judge_of(judge, settings, model=model, compute=compute)
    with step(f"judge {len(texts)} answers"):
        pairs = [(asked, prompt.target, text) for asked, prompt, text in zip(instructions, prompts, texts, strict=True)]
        said = in_pieces(judging, pairs, "judge", checkpoints)
    rows = preference.outputs(instructions, texts, cell)
    write_json(outputs, rows)
    write_json(
        annotations,
        [
            {
                "instruction": row["instruction"],
                "output_1": prompt.target,
                "generator_1": prompt.meta["reference"],
                "output_2": row["output"],
                "generator_2": cell,
                "annotator": judge,
                "preference": value,
            }
            for row, prompt, value in zip(rows, prompts, said, strict=True)
        ],
    )
    with step("the instructions' difficulty"):
        difficulty = preference.difficulties(read_jsonl(annotated))
    of_prompts = [difficulty.get(instruction, 0.0) for instruction in instructions]
    lengths, references = [len(text) for text in texts], [len(prompt.target) for prompt in prompts]
    controlled = preference.length_controlled_win_rate(said, lengths, references, of_prompts)
    words = read_json(agreement)
    agreed = preference.agreement(words["said"], words["gpt4"])
    found = {
        "win_rate": preference.win_rate(said),
        "length_controlled_win_rate": controlled,
        "agreement_with_gpt4": agreed.share,
        "agreement_pairs": float(agreed.n),
    }
    write_json(
        preferences,
        {
            "judge": judge,
            "cell": cell,
            "reference": prompts[0].meta["reference"],
            "preferences": said,
            "length_controlled_win_rate": controlled,
            "agreed": preference.agreeing(words["said"], words["gpt4"]),
            "drawn": agreed.drawn,
        },
    )
    show_table("win rate", [{"judge": judge, "cell": cell, **found}])
    return found


if __name__ == "__main__":
    main()
