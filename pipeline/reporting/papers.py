"""What rows, tables and benchmarks are called, here and in the papers."""

ROWS = {
    "base": "Base model",
    "lora": "LoRA",
    "dora": "DoRA",
    "ia3": "(IA)³",
    "tinylora": "TinyLoRA",
    "svf": "SVF expert",
    "best_lora": "Best LoRA expert",
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
    "reft": "LoReFT",
    "direft": "DiReFT",
    "loreft": "One shared LoReFT",
    "csreft": "CS-ReFT",
}
TITLES = {  # in the order of the report
    "table1": "Table 1. Experts on the tasks they were trained on",
    "table2": "Table 2. Unseen tasks, adapted to at test time",
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
    "commonsense8": "Commonsense. ReFT's eight tasks, trained on together",
    "arithmetic4": "Arithmetic. ReFT's four tasks, trained on together",
}
DISPATCHERS = {"prompt": "Prompt to the base model", "classifier": "Classification expert"}
# Where a paper's table stands in data/published, and what it calls our rows and domains.
PUBLISHED_MODEL = "llama3-8b-instruct"
PUBLISHED_MODEL_NAME = "Llama-3-8B-Instruct"
MOVED_TO = {  # the model that these tables are of, where it is another
    **dict.fromkeys(("table5", "table9"), "Mistral-7B-Instruct-v0.3"),
    **dict.fromkeys(("commonsense8", "arithmetic4"), "LLaMA-7B"),
}
PUBLISHED = {"table1": "table1_finetuning", "table2": "table2_unseen", "table7": "table7_more_peft"}
PUBLISHED_TRAINED = {"math": "gsm8k", "code": "mbpp_pro", "reasoning": "arc_easy"}
PUBLISHED_UNSEEN = {"math": "math", "code": "humaneval", "reasoning": "arc_challenge"}
PUBLISHED_ROWS = {"best_lora": "lora", "classifier": "cls_expert"}
BENCHMARKS = {
    "gsm8k": "GSM8K",
    "mbpp_pro": "MBPP-Pro",
    "arc_easy": "ARC-Easy",
    "math": "MATH",
    "humaneval": "HumanEval",
    "arc_challenge": "ARC-Challenge",
}


def row_name(row: str) -> str:
    return ROWS.get(row, row.replace("_", " "))
