"""EvalPlus's verdict on programs. Run by the Python of an environment that has evalplus, never imported.

stdin: lines of {"id", "dataset", "problem": a row of its file, "answer"}. stdout: lines of {"id", "base", "plus"}.
Answers are read by EvalPlus's ``sanitize``, judged by its ``untrusted_check``; it may take ``SECONDS`` for a test.
``sanitize`` drops helper functions that have no ``return``: it fails the reference of Mbpp/630, whose helper yields.
"""

import json
import sys
from functools import cache

from evalplus.data.mbpp import mbpp_deserialize_inputs
from evalplus.eval import PASS, untrusted_check
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
from evalplus.gen.util import trusted_exec
from evalplus.sanitize import sanitize

SECONDS = 30.0  # of wall time; EvalPlus's own 1 is of a machine that does nothing else
problems = {}


@cache
def expected(dataset, id):
    problem = problems[id]
    source = (problem["prompt"] if dataset == "humaneval" else "") + problem["canonical_solution"]
    by_kind = {}
    for kind in ("base", "plus"):
        inputs = problem[f"{kind}_input"] or []
        inputs = mbpp_deserialize_inputs(id, inputs) if dataset == "mbpp" and inputs else inputs
        not_none = problem["entry_point"] in MBPP_OUTPUT_NOT_NONE_TASKS
        values, seconds = trusted_exec(source, inputs, problem["entry_point"], True, not_none)
        by_kind[kind] = (inputs, values, seconds)
    return by_kind


for line in sys.stdin:
    item = json.loads(line)
    problem = problems.setdefault(item["problem"]["task_id"], item["problem"])
    name = problem["entry_point"]
    code = sanitize(item["answer"], name)
    verdict = {"id": item["id"]}
    for kind, (inputs, values, seconds) in expected(item["dataset"], problem["task_id"]).items():
        if not verdict.get("base", True):  # failed already
            verdict[kind] = False
            continue
        said, _ = untrusted_check(
            item["dataset"], code, inputs, name, values, problem["atol"], seconds, True, SECONDS, 4.0
        )
        verdict[kind] = said == PASS
    print(json.dumps(verdict), flush=True)
