"""lm-evaluation-harness asks our server (``local-completions``) and gets what transformers computes of the same texts.

Needs the harness: ``pip install lm_eval``.
"""

import pytest
import torch

from pipeline.model.forward.base import load_base
from pipeline.serving.assistant import Assistant
from pipeline.serving.http.limits import Limits
from pipeline.serving.http.server import Server
from tests.project import make_project
from tests.serving import served

harness = pytest.importorskip("lm_eval.models.openai_completions", reason="needs lm_eval: pip install lm_eval")
instance = pytest.importorskip("lm_eval.api.instance")

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
