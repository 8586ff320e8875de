"""lm-evaluation-harness's verdict on answers. Run by the Python of an environment that has lm_eval, never imported.

stdin: lines of {"id", "task": gsm8k or math, "gold": the written solution, "answer"}. stdout: lines of {"id", ...}: for
gsm8k what the filters in its gsm8k.yaml extract (``strict``, ``flexible``) and whether its metric finds either right
(``right``); for math ``right``, which is minerva_math's ``math_verify``.
"""

import json
import sys
from pathlib import Path

import lm_eval
import yaml
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter
from lm_eval.tasks.minerva_math import utils

settings = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text())
metric = settings["metric_list"][0]
options = {key: metric[key] for key in ("regexes_to_ignore", "ignore_case", "ignore_punctuation")}
filters = {
    entry["name"].partition("-")[0]: RegexFilter(
        entry["filter"][0]["regex_pattern"], group_select=entry["filter"][0].get("group_select", 0)
    )
    for entry in settings["filter_list"]
}


def gsm8k(gold, answer):
    extracted = {name: extract.apply([[answer]], [{}])[0][0] for name, extract in filters.items()}
    results = [
        exact_match_hf_evaluate(predictions=[given], references=[gold], **options) for given in extracted.values()
    ]
    return {**extracted, "right": any(bool(result["exact_match"]) for result in results)}


for line in sys.stdin:
    item = json.loads(line)
    if item["task"] == "gsm8k":
        verdict = gsm8k(item["gold"], item["answer"])
    else:
        doc = {"solution": item["gold"], "answer": ""}
        verdict = {"right": bool(utils.process_results(doc, [item["answer"]])["math_verify"])}
    print(json.dumps({"id": item["id"], **verdict}), flush=True)
