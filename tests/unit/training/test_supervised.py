"""Next-token prediction: its loss, its schedule, and going on after a kill."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.methods import csreft, lora, reft
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import decoder
from pipeline.model.forward.lm_head import lm_head_of
from pipeline.model.forward.logprobs import token_logprobs
from pipeline.training import supervised
from pipeline.training.loop import Data, Training
from pipeline.training.packing import answer_hidden, packed_batches
from tests.tiny import OPTIMISATION, same_tensors, tiny_compute

END = 2


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return SimpleNamespace(
        model=model,
        lm_head=lm_head_of(model),
        device=torch.device("cpu"),
        prompt_ids=lambda messages: [1, *(3 + ord(letter) % 50 for letter in messages[-1]["content"])],
        answer_ids=lambda text: [*(3 + ord(letter) % 50 for letter in text), END],
    )


def example(question: str, target: str) -> Example:
    return Example(question, ({"role": "user", "content": question},), target, {})


# The answer repeats the question's last letter, once or three times.
EXAMPLES = [
    example("abcdefgh"[: 2 + i % 6] + letter, letter * (1 + 2 * (i % 2))) for i, letter in enumerate("pqrstuvw")
]


def training(**changes) -> supervised.Answering:
    return supervised.Answering.parse({**OPTIMISATION, "warmup": 0.2, "weight_decay": 0.01, **changes}, "training")


def adapters(base, gate="hard"):
    generator = torch.Generator().manual_seed(1)
    edits = {"rank": 2, "layers": "all", "positions": "f1+l2", "tied": True, "initial": "identity"}
    router = {
        "input": "last_token",
        "layer": 0,
        "gate": gate,
        "penalty": "sparsity",
        "penalty_weight": 0.01,
        "supervision": 0.1,
        "learning_rate_ratio": 4.0,
    }
    gated = csreft.initial(
        base.model,
        csreft.Settings.parse({**edits, "orthonormal": "across", "router": router}, "csreft.adapter"),
        ["one", "two"],
        generator,
    )
    gated.supervise([row % 2 for row in range(len(EXAMPLES))])
    low_rank = {"rank": 2, "alpha": 4, "dropout": 0.2, "modules": ["q_proj", "v_proj"]}
    return {
        "reft": reft.initial(
            base.model, reft.Settings.parse({"formula": "loreft", **edits}, "reft.adapter"), generator
        ),
        "csreft": gated,
        "lora": lora.initial(base.model, lora.Settings.parse(low_rank, "lora.adapter"), generator),
    }


def train(base, adapter, folder, measure=None, **changes):
    return supervised.train(
        base,
        adapter,
        Data(EXAMPLES, EXAMPLES[:4]),
        compute=tiny_compute(batch_tokens=64),
        training=Training(training(**changes), seed=0, checkpoints=Checkpoints(folder)),
        measure=measure,
    )


def test_loss_is_the_mean_over_answer_tokens_of_each_example_alone(base):
    groups = supervised.encode(base, EXAMPLES)
    with torch.no_grad():
        ((batch, packed),) = packed_batches(groups, Attachment(), batch_tokens=1000, device=base.device)
        hidden = answer_hidden(decoder(base.model), packed, Attachment())
        logprobs, _ = token_logprobs(hidden[packed.state], base.lm_head, packed.target)
        losses = supervised.answer_losses(packed, logprobs)
        for group, loss in zip([groups[index] for index in batch], losses, strict=True):
            ids = torch.tensor([[*group.prompt, *group.answers[0]]])
            logits = base.model(input_ids=ids).logits[0, len(group.prompt) - 1 : -1]
            expected = functional.cross_entropy(logits, torch.tensor(group.answers[0]))
            torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert groups[0].answers[0][-1] == END


def test_gradient_does_not_depend_on_the_micro_batches(base):
    gradients = []
    for batch_tokens in (8, 1000):
        adapter = adapters(base)["reft"]
        with adapter.learning(base.model) as attachment:
            groups = supervised.encode(base, EXAMPLES)
            supervised._accumulate(base, adapter, attachment, groups, batch_tokens, whole=len(groups))
        gradients.append(adapter.weight.grad)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_beginnings_shared_by_told_gates_have_the_gradient_of_each_prompt_alone(base):
    gradients = []
    for together in (True, False):
        adapter = adapters(base, "told")["csreft"]
        with torch.no_grad():
            adapter.weight.normal_(generator=torch.Generator().manual_seed(4))  # edits that change something
        with adapter.learning(base.model) as attachment:
            groups = supervised.encode(base, [example(f"abcdefghij{one.id}", one.target) for one in EXAMPLES])
            for some in [groups] if together else [[group] for group in groups]:
                ((_, packed), *_) = packed_batches(some, attachment, batch_tokens=1000, device=base.device)
                assert (packed.shared > 0) == together
                supervised._accumulate(base, adapter, attachment, some, 1000, whole=len(some))
        scale = 1 if together else len(groups)
        gradients.append({name: one.grad / scale for name, one in adapter.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4)


def test_a_router_learns_at_a_rate_of_its_own(base, tmp_path):
    adapter = adapters(base)["csreft"]
    before = {name: tensor.clone() for name, tensor in adapter.state().items()}
    moved = {}

    def look(attachment):
        moved.update({name: float((tensor - before[name]).abs().max()) for name, tensor in adapter.state().items()})
        return 0.0

    # AdamW's first step moves what has a gradient by the learning rate, whatever the gradient's size.
    train(base, adapter, tmp_path, look, steps=1, warmup=0.0, weight_decay=0.0)
    assert moved["weight"] == pytest.approx(0.02, rel=1e-3) and moved["bias"] == pytest.approx(0.02, rel=1e-3)
    assert moved["router_out_bias"] == pytest.approx(4 * 0.02, rel=1e-3)
    assert moved["router_in_weight"] == pytest.approx(4 * 0.02, rel=1e-3)


@pytest.mark.parametrize("kind", ["reft", "csreft", "lora"])
def test_training_lowers_the_loss_and_keeps_the_best_state(base, tmp_path, kind):
    adapter = adapters(base)[kind]
    weights = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    curve = train(base, adapter, tmp_path, steps=20)
    assert [row["step"] for row in curve] == list(range(21))
    validated = {row["step"]: row["validation"] for row in curve if row["validation"] is not None}
    (chosen,) = [row for row in curve if row["chosen"]]
    assert chosen["validation"] == min(validated.values()) < validated[0]
    assert {row["objective"] for row in curve} == {"next_token"}
    with adapter.learning(base.model) as attachment:
        groups = supervised.encode(base, EXAMPLES[:4])
        assert (
            math.fsum(supervised.validation_losses(base, attachment, groups, 64)) / len(groups) == chosen["validation"]
        )
    assert same_tensors(dict(base.model.state_dict()), weights)


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [([0.5, 0.9, 0.2, 0.9], (2, 6)), ([0.5, 0.1, 0.2, 0.4], (0,)), ([math.nan, math.nan, -0.1, math.nan], (4,))],
)
def test_the_state_that_measures_best_is_kept_and_the_loss_decides_between_equals(base, tmp_path, measured, chosen):
    adapter, states, numbers = adapters(base)["reft"], [], iter(measured)

    def measure(attachment):
        states.append({name: tensor.clone() for name, tensor in adapter.state().items()})
        return next(numbers)

    curve = train(base, adapter, tmp_path, measure=measure)
    validated = [row for row in curve if row["validation"] is not None]
    assert [row["measured"] for row in validated] == [None if math.isnan(one) else one for one in measured]
    assert len(states) == len(measured)
    (kept,) = [row for row in curve if row["chosen"]]
    equals = [row for row in validated if row["step"] in chosen]
    assert kept["validation"] == min(row["validation"] for row in equals)
    assert same_tensors(adapter.state(), states[validated.index(kept)])


@pytest.mark.parametrize("kind", ["reft", "csreft", "lora"])
def test_a_killed_run_ends_with_the_same_bytes(base, tmp_path, kind, monkeypatch):
    undisturbed = adapters(base)[kind]
    curve = train(base, undisturbed, tmp_path / "undisturbed", checkpoint_every=3)

    class Killed(BaseException):
        pass

    real, steps = supervised.order_of, []

    def dies(step, *given):
        steps.append(step)
        if len(steps) == 5:  # two steps after the checkpoint
            raise Killed
        return real(step, *given)

    monkeypatch.setattr(supervised, "order_of", dies)
    with pytest.raises(Killed):
        train(base, adapters(base)[kind], tmp_path / "killed", checkpoint_every=3)
    torch.manual_seed(99)  # another process: another state of the global generator
    resumed = adapters(base)[kind]
    assert train(base, resumed, tmp_path / "killed", checkpoint_every=3) == curve
    assert steps == [1, 2, 3, 4, 5, 4, 5, 6]
    assert same_tensors(resumed.state(), undisturbed.state())


def test_training_ends_when_validation_brings_no_new_best(base, tmp_path):
    numbers = iter([0.5, 0.4, 0.9, 0.1, 0.2, 0.3])
    adapter = adapters(base)["reft"]
    curve = train(base, adapter, tmp_path, lambda _: next(numbers), steps=9, validate_every=1, patience=1)
    assert [row["measured"] for row in curve] == [0.5, 0.4, 0.9, 0.1, 0.2]
    assert [row["step"] for row in curve if row["chosen"]] == [2]


def test_loreft_stays_orthonormal_through_training(base, tmp_path):
    adapter = adapters(base)["reft"]
    start = adapter.rotation.detach().clone()
    train(base, adapter, tmp_path, steps=10)
    products = (adapter.rotation @ adapter.rotation.mT).detach()
    torch.testing.assert_close(products, torch.eye(2).expand_as(products), atol=1e-5, rtol=0)
    assert (adapter.rotation - start).abs().max() > 0.01


def test_no_examples_are_refused(base, tmp_path):
    with pytest.raises(UserError, match="expected training and validation examples"):
        supervised.train(
            base,
            adapters(base)["reft"],
            Data([], EXAMPLES),
            compute=tiny_compute(),
            training=Training(training(), seed=0, checkpoints=Checkpoints(tmp_path)),
        )


def test_a_training_that_diverges_says_so(base, tmp_path):
    with pytest.raises(UserError, match=r"expected a finite .* lower the learning rate"):
        train(base, adapters(base)["lora"], tmp_path, learning_rate=1e30)


def test_what_is_beyond_the_longest_is_cut_off(base):
    examples = [example("abcd", "pq"), example("abcdefgh", "pq"), example("ab", "pqr")]
    whole, cut = supervised.encode(base, examples), supervised.encode(base, examples, max_tokens=6)
    assert [(group.row, len(group.prompt), len(group.answers[0])) for group in cut] == [(0, 5, 1), (2, 3, 3)]
    assert cut[1].answers[0] == whole[2].answers[0][:3]
    with pytest.raises(UserError, match="expected prompts of fewer than 3 tokens, got none"):
        supervised.encode(base, examples, max_tokens=3)
