"""The papers, as data: what rows, tables and benchmarks are called, and the papers' numbers.

The numbers stand in ``data/published``; this module says which of them stands beside which row and task of ours. What
the papers claim stands in ``data/published/claims.yaml`` and is judged by ``pipeline.reporting.claims``.
"""

from collections.abc import Collection, Mapping
from typing import Any

ROWS = {
    "base": "Base model",
    "lora": "LoRA",
    "dora": "DoRA",
    "ia3": "(IA)³",
    "tinylora": "TinyLoRA",
    "svf": "SVF expert",
    "best_lora": "Best LoRA expert",
    "best_dora": "Best DoRA expert",
    "best_ia3": "Best (IA)³ expert",
    "prompt": "SVF mixed by prompt",
    "classifier": "SVF mixed by classification expert",
    "few_shot": "SVF mixed by few-shot CEM",
    **{f"few_shot_{n}": f"SVF mixed by CEM on {n} prompts" for n in (3, 5, 20)},
    "few_shot_light": "SVF mixed by a light CEM",
    **{f"ia3_{s}_steps_{n}": f"IA3, {s} steps on {n} prompts" for s in (100, 1000) for n in (3, 5, 10, 20)},
    "uniform": "SVF mixed in equal parts",
    "shooting": "SVF mixed by random shooting",
    "cma_es": "SVF mixed by CMA-ES",
    "ordered": "SVF experts of the first model",
    "shuffled": "the same, shuffled",
    "cross": "SVF experts of both, few-shot CEM",
    **{f"{task}_expert": f"SVF expert of {task}, alone" for task in ("signs", "sums", "functions", "kinds", "textvqa")},
    **{f"{task}_expert": f"SVF expert of {task}, alone" for task in ("gsm8k", "mbpp_pro", "arc_easy")},
    "wrong_counts_whole": "SVF, −1 for wrong answers",
    "no_baseline": "SVF, no baseline",
    "no_baseline_whole": "SVF, no baseline, −1 for wrong answers",
    "reft": "LoReFT",
    "direft": "DiReFT",
    "loreft": "One shared LoReFT",
    "csreft": "CS-ReFT",
}
TITLES = {  # in the order of the report
    "table1": "Table 1. Experts on the tasks they were trained on",
    "table2": "Table 2. Unseen tasks, adapted to at test time",
    "figure5": "Figure 5. Pictures: what is read on them, and what follows from it",
    "rewards": "Rewards. What a wrong answer about a picture costs",
    "table4": "Table 4. Method, objective and modules",
    "table5": "Table 5. Experts moved to another model, unseen tasks",
    "table5_resampled": "Table 5, resampled. Experts moved to a model of another shape, unseen tasks",
    "table7": "Table 7. More efficient tuning",
    "table8": "Table 8. More and fewer prompts to adapt on",
    "table9": "Table 9. Experts moved to another model, their own tasks",
    "table9_resampled": "Table 9, resampled. Experts moved to a model of another shape, their own tasks",
    "table10": "Table 10. Light adaptation",
    "searchers": "Searchers. What finds the better mixture",
    "csreft": "CS-ReFT. Every skill in one model",
    "interference": "Interference. Three skills trained together, and each alone",
    "interference4": "Interference of four. Four skills trained together, and each alone",
    "ablations": "Ablations. What CS-ReFT is made of",
    "commonsense8": "Commonsense. ReFT's eight tasks, trained on together",
    "arithmetic4": "Arithmetic. ReFT's four tasks, trained on together",
}
DISPATCHERS = {"prompt": "Prompt to the base model", "classifier": "Classification expert"}
# The model whose numbers stand beside ours, in data/published and for people.
PUBLISHED_MODEL = "llama3-8b-instruct"
PUBLISHED_MODEL_NAME = "Llama-3-8B-Instruct"
MOVED_TO = {  # the model that these tables are of, where it is another
    **dict.fromkeys(("table5", "table9"), "Mistral-7B-Instruct-v0.3"),
    **dict.fromkeys(("commonsense8", "arithmetic4"), "LLaMA-7B"),
}
BENCHMARKS = {
    "gsm8k": "GSM8K",
    "mbpp_pro": "MBPP-Pro",
    "arc_easy": "ARC-Easy",
    "math": "MATH",
    "humaneval": "HumanEval",
    "arc_challenge": "ARC-Challenge",
}


def row_name(row: str) -> str:
    """What a row is called."""
    return ROWS.get(row, row.replace("_", " "))


# ---- numbers --------------------------------------------------------------------------------------------------------

PUBLISHED_TRAINED = {"math": "gsm8k", "code": "mbpp_pro", "reasoning": "arc_easy"}
PUBLISHED_UNSEEN = {"math": "math", "code": "humaneval", "reasoning": "arc_challenge"}
PUBLISHED_ROWS = {"best_lora": "lora", "best_dora": "dora", "best_ia3": "ia3", "classifier": "cls_expert"}
# Where the numbers of a table stand in data/published/transformer2.yaml: by model, rows by benchmarks.
PUBLISHED = {"table1": "table1_finetuning", "table2": "table2_unseen", "table7": "table7_more_peft"}
# The same of a table of variants, each of a shape of its own, with the benchmark that was taken for each domain.
VARIANTS = {
    "table5": ("table5_cross_model_unseen", PUBLISHED_UNSEEN),
    "table8": ("table8_few_shot_scaling", {"reasoning": "arc_challenge"}),
    "table9": ("table9_cross_model_training_tasks", PUBLISHED_TRAINED),
    "table10": ("table10_light_adaptation", {"reasoning": "arc_challenge"}),
    "searchers": ("uniform_alpha_math", {"math": "math"}),
}
PUBLISHED_MOVED = {
    "base": "base",
    "ordered": "llama_svf_ordered",
    "shuffled": "llama_svf_shuffled",
    "cross": "few_shot_cross",
}
PUBLISHED_SHOTS = {  # each on several numbers of prompts; the usual search is on ten
    "transformer2": "few_shot_{}",
    "ia3_100_steps": "ia3_100_steps_{}",
    "ia3_1000_steps": "ia3_1000_steps_{}",
}
PUBLISHED_LIGHT = {"base": "base", "cem_10_shot": "few_shot", "cem_3_shot": "few_shot_3", "cem_light": "few_shot_light"}


def published_of(
    key: str, domains: Mapping[str, str], unseen: Collection[str], published: Mapping[str, Any]
) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    """The paper's accuracies by our row and task, and the benchmark that each task's domain was measured by there.

    key: of a table; one that no paper has (``table9_resampled``) has no numbers. domains: task to domain. unseen: the
    tasks that nothing is trained on. published: ``data/published``, by file.
    """
    if key in PUBLISHED:
        tables = published.get("transformer2", {}).get(PUBLISHED[key], {}).get(PUBLISHED_MODEL, {})
        percents = {
            (row, benchmark): value
            for row in ROWS
            for benchmark, value in tables.get(PUBLISHED_ROWS.get(row, row), {}).items()
        }
        benchmarks = {
            task: name
            for task, domain in domains.items()
            if (name := (PUBLISHED_UNSEEN if task in unseen else PUBLISHED_TRAINED).get(domain))
        }
    elif key in VARIANTS:
        section, of_domain = VARIANTS[key]
        percents = percents_of_variants(key, published.get("transformer2", {}).get(section, {}))
        benchmarks = {task: of_domain[domain] for task, domain in domains.items() if domain in of_domain}
    else:
        return {}, {}
    accuracies = {
        (row, task): value / 100
        for task, benchmark in benchmarks.items()
        for (row, name), value in percents.items()
        if name == benchmark
    }
    return accuracies, {task: BENCHMARKS[name] for task, name in benchmarks.items()}


def percents_of_variants(key: str, section: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """The paper's percents in a table of variants, by our row and the benchmark."""
    if key in ("table5", "table9"):
        lines = {row: section.get(name, {}) for row, name in PUBLISHED_MOVED.items()}
        return {(row, benchmark): value for row, line in lines.items() for benchmark, value in line.items()}
    if key == "searchers":
        return {(row, "math"): value for row, value in section.items()}
    if key == "table10":
        return {(PUBLISHED_LIGHT[name], "arc_challenge"): value for name, value in section.items()}
    percents = {("base", "arc_challenge"): section["base"]} if "base" in section else {}
    for name, row in PUBLISHED_SHOTS.items():
        percents |= {(row.format(shots), "arc_challenge"): value for shots, value in section.get(name, {}).items()}
    usual = percents.pop(("few_shot_10", "arc_challenge"), None)
    return percents if usual is None else {**percents, ("few_shot", "arc_challenge"): usual}
