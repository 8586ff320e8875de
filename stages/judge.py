"""A judge's win rate of a cell's answers over the reference's, and how often that judge agrees with GPT-4."""

import random
from typing import Literal

from pipeline.core.artifacts import read_examples, read_jsonl, write_json
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.models import Compute, load_base, prepare_process
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.judging import local
from pipeline.scoring import preference
from pipeline.scoring.preference import judges


class Judging(Section, at="judges.{judge}"):
    """A judge: the longer answer, the base model (``local``), or a model behind an OpenAI-compatible endpoint.

    pairs: GPT-4's annotations that its agreement is measured on, drawn by ``seed``. url, model: of an endpoint.
    """

    kind: Literal["longer", "local", "endpoint"]
    pairs: int
    seed: int
    url: str = ""
    model: str = ""


def run(
    *,
    judge: str,
    cell: str,
    model: In,
    examples: In,
    completions: In,
    annotated: In,
    compute: Compute,
    settings: Judging,
    outputs: Out,
    annotations: Out,
) -> dict[str, float]:
    """Judge one cell."""
    prepare_process(compute)
    prompts, answers = read_examples(examples), {row["id"]: row["text"] for row in read_jsonl(completions)}
    instructions = [prompt.meta["question"] for prompt in prompts]
    texts = [answers[prompt.id] for prompt in prompts]
    if settings.kind == "endpoint" and not (settings.url and settings.model):
        raise UserError(f"params.yaml: expected 'judges.{judge}' of an endpoint to have 'url' and 'model'; add them")
    with step(f"the judge {judge}"):
        judging = {
            "longer": lambda: judges.longer,
            "local": lambda: local(load_base(model, compute), compute),
            "endpoint": lambda: judges.endpoint(settings.url, settings.model),
        }[settings.kind]()
    with step(f"its agreement with GPT-4 on {settings.pairs} pairs"):
        known = [row for row in read_jsonl(annotated) if preference.preference(row) in (1.0, 2.0)]
        if len(known) < settings.pairs:
            raise UserError(f"expected {settings.pairs} annotated pairs, {annotated} has {len(known)}; ask for fewer")
        drawn = random.Random(settings.seed).sample(known, settings.pairs)
        said = judging([(row["instruction"], row["output_1"], row["output_2"]) for row in drawn])
        agreed = preference.agreement(said, [preference.preference(row) for row in drawn])
    with step(f"judge {len(texts)} answers"):
        preferences = judging(
            [(asked, prompt.target, text) for asked, prompt, text in zip(instructions, prompts, texts, strict=True)]
        )
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
            for row, prompt, value in zip(rows, prompts, preferences, strict=True)
        ],
    )
    lengths, references = [len(text) for text in texts], [len(prompt.target) for prompt in prompts]
    found = {
        "win_rate": preference.win_rate(preferences),
        "length_controlled_win_rate": preference.length_controlled_win_rate(preferences, lengths, references),
        "agreement_with_gpt4": agreed.share,
        "agreement_pairs": float(agreed.n),
    }
    show_table("win rate", [{"judge": judge, "cell": cell, **found}])
    return found


if __name__ == "__main__":
    main()
