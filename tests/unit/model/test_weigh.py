"""Choices by log-likelihood: lm-evaluation-harness's two ways, against whole forward passes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.core.artifacts import read_jsonl, write_jsonl
from pipeline.core.errors import UserError
from pipeline.methods.base import Unadapted
from pipeline.model.forward.base import Compute
from pipeline.scoring import choices
from stages import weigh
from tests.tiny import tiny_base

COMPUTE = Compute(device="cpu", dtype="float32", threads=1, batch_tokens=64, cache_tokens=256)


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(weigh, "load_base", lambda *_: tiny_base())
    monkeypatch.setattr(weigh, "load_adapter", lambda *_: (Unadapted(), {}))
    paths = {name: tmp_path / name for name in ("model", "factors", "adapter", "examples", "weighed")}
    return {**paths, "compute": COMPUTE}


def test_the_likeliest_choice_is_that_of_whole_passes(arguments: dict[str, Any]) -> None:
    texts = [["blue", "red and green", "so"], ["a", "bb", "dddd"], ["yes", "no", "perhaps it is"]]
    examples = [choices.example(f"q{n}", f"Which of {n}?", offered, n) for n, offered in enumerate(texts)]
    write_jsonl(arguments["examples"], (vars(example) for example in examples))
    means = weigh.run(**arguments)
    rows = read_jsonl(arguments["weighed"])
    base = tiny_base()
    for example, offered, row in zip(examples, texts, rows, strict=True):
        known = []
        for text in offered:
            prompt, answer = base.prompt_ids(example.messages), base.answer_ids(text)[:-1]
            logprobs = base.model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
            places = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
            known.append(float(logprobs[places, torch.tensor(answer)].sum()))
        assert list(row["log_likelihoods"].values()) == pytest.approx(known, abs=1e-4)
        right = example.meta["labels"].index(example.meta["answer"])
        assert row["likeliest"] == float(max(range(3), key=known.__getitem__) == right)
        per_character = [value / len(text) for value, text in zip(known, offered, strict=True)]
        assert row["likeliest_per_character"] == float(max(range(3), key=per_character.__getitem__) == right)
    assert means["likeliest"] == pytest.approx(sum(row["likeliest"] for row in rows) / 3)


def test_names_and_bare_labels_are_choices_too() -> None:
    named = choices.example("x", "Who?", ["Ann", "Bo"], 0)
    assert choices.offered(named) == {"A": "Ann", "B": "Bo"}
    assert choices.offered(type(named)("y", (), "", {"choices": {"Ann": "Ann", "Bo": "Bo"}})) == {
        "Ann": "Ann",
        "Bo": "Bo",
    }
    assert choices.offered(type(named)("z", (), "", {"choices": {"true": "", "false": ""}})) == {
        "true": "true",
        "false": "false",
    }


def test_a_task_without_choices_is_one_sentence(arguments: dict[str, Any]) -> None:
    write_jsonl(arguments["examples"], [{"id": "a", "messages": [], "target": "4", "meta": {"answer": "4"}}])
    with pytest.raises(UserError, match="expected choices in the meta of every example"):
        weigh.run(**arguments)
    assert not arguments["weighed"].exists()
