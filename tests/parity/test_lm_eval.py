"""lm-evaluation-harness asks our server (``local-completions``) and gets what transformers computes of the same texts.

Needs the harness: ``pip install 'selfadapt[harness]'``. Run as a program, it has the harness ask a server that runs on
a finished project the first GSM8K problems of the mirror:

    selfadapt serve & python -m tests.parity.test_lm_eval http://127.0.0.1:8000/v1 expert:sums artifacts/base/model
"""

import json
import os
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from pipeline.model.forward.base import load_base
from pipeline.serving.assistant import Assistant
from pipeline.serving.http.limits import Limits
from pipeline.serving.http.server import Server
from tests.project import make_project
from tests.serving import served

NEEDS = "needs lm_eval: pip install 'selfadapt[harness]'"
harness = pytest.importorskip("lm_eval.models.openai_completions", reason=NEEDS)
instance = pytest.importorskip("lm_eval.api.instance", reason=NEEDS)

PAIRS = [("What is 12 + 30?", " Anna, Ben"), ("def f(x):", " return x"), ("Who is the oldest?", " Anna")]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture(scope="module")
def url(project):
    with served(Server(Assistant(project), Limits())) as url:
        yield url


def asked(kind: str, *arguments) -> list:
    return [instance.Instance(kind, {}, pair, 0) for pair in arguments]


@pytest.mark.parametrize("tokenized", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_harness_gets_log_likelihoods_and_answers(project, url, tokenized, batch):
    base = load_base(project.model, project.compute())
    model = harness.LocalCompletionsAPI(
        base_url=f"{url}/v1/completions",
        model="base",
        tokenizer=str(project.model),
        tokenized_requests=tokenized,
        batch_size=batch,
        max_length=512,
    )
    told = model.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)
    for (context, continuation), (value, greedy) in zip(PAIRS, told, strict=True):
        start, ids = len(base.tokenizer(context)["input_ids"]), base.tokenizer(context + continuation)["input_ids"]
        with torch.no_grad():
            logprobs = base.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(1)
        places = range(start, len(ids))
        assert value == pytest.approx(sum(float(logprobs[place - 1, ids[place]]) for place in places), abs=1e-3)
        assert greedy == all(int(logprobs[place - 1].argmax()) == ids[place] for place in places)
    until = {"until": ["a"], "max_gen_toks": 8, "do_sample": False}
    texts = model.generate_until(
        asked("generate_until", *((context, until) for context, _ in PAIRS)), disable_tqdm=True
    )
    assert len(texts) == len(PAIRS)
    assert not [text for text in texts if "a" in text]


# ---- the harness as a whole: its tasks, its requests side by side, its scores ---------------------------------------

PROBLEMS = 50


def problems(count: int):
    """The first test problems of GSM8K, from the mirror, with the right number and a wrong one."""
    import datasets

    path = Path(os.environ["SELFADAPT_MIRROR"]) / "gsm8k/test.jsonl"
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, count)]
    numbers = [row["answer"].rpartition("#### ")[2].replace(",", "") for row in rows]
    made = [
        {"question": row["question"], "numbers": [number, f"{number}7"]}
        for row, number in zip(rows, numbers, strict=True)
    ]
    return {"test": datasets.Dataset.from_list(made)}


def tasks(count: int, tokens: int) -> list[dict]:
    """GSM8K in writing, and as a choice between two numbers, which needs log-likelihoods."""
    common = {"custom_dataset": lambda **_: problems(count), "test_split": "test", "num_fewshot": 0}
    asked = "Question: {{question}}\\nAnswer:"
    written = {
        "task": "gsm8k_written",
        "output_type": "generate_until",
        "doc_to_text": asked,
        "doc_to_target": "{{numbers[0]}}",
        "generation_kwargs": {"until": ["Question:"], "max_gen_toks": tokens, "do_sample": False},
        "filter_list": [
            {
                "name": "last-number",
                "filter": [
                    {"function": "regex", "group_select": -1, "regex_pattern": r"(-?[0-9][0-9.,]*)"},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    chosen = {
        "task": "gsm8k_chosen",
        "output_type": "multiple_choice",
        "doc_to_text": asked,
        "doc_to_choice": "{{numbers}}",
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    return [{**common, **written}, {**common, **chosen}]


def evaluated(url: str, model: str, tokenizer: str, *, count: int = PROBLEMS, tokens: int, room: int) -> dict:
    """What the harness makes of both tasks. room: the most tokens of a prompt and its answer."""
    import lm_eval

    asked = harness.LocalCompletionsAPI(
        base_url=f"{url}/completions",
        model=model,
        tokenizer=tokenizer,
        num_concurrent=8,
        max_length=room,
        timeout=1200,
    )
    found = lm_eval.simple_evaluate(model=asked, tasks=tasks(count, tokens), bootstrap_iters=0, log_samples=True)
    return {name: {**found["results"][name], "asked": len(found["samples"][name])} for name in found["results"]}


@pytest.mark.skipif(
    "SELFADAPT_MIRROR" not in os.environ, reason="needs SELFADAPT_MIRROR, a folder with gsm8k/test.jsonl"
)
def test_the_harness_asks_fifty_problems_of_gsm8k(project, url):
    found = evaluated(f"{url}/v1", "expert:sums", str(project.model), tokens=8, room=500)
    assert {name: of["asked"] for name, of in found.items()} == {"gsm8k_written": PROBLEMS, "gsm8k_chosen": PROBLEMS}
    scores = (found["gsm8k_written"]["exact_match,last-number"], found["gsm8k_chosen"]["acc,none"])
    assert all(0 <= score <= 1 for score in scores)


if __name__ == "__main__":
    address, strategy, folder = sys.argv[1:]
    for name, of in evaluated(address, strategy, folder, tokens=128, room=2048).items():
        print(name, of)
