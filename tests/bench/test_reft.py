"""A step of LoReFT against the frozen model, its fixed cost against pyreft's, and generation against the base.

Rank 4, every layer, first and last token. The comparison with pyreft wants ``pip install --no-deps pyreft pyvene``.
"""

import time

import pytest
import torch

from pipeline.methods import reft
from pipeline.model.decoding.answer import generate
from pipeline.model.forward.base import Adapted, Base, decoder
from tests.bench.conftest import COMPUTE

ROWS, TOKENS, RANK = 8, 128, 4
SETTINGS = reft.Settings(formula="loreft", rank=RANK, layers="all", positions="f1+l1", tied=False, initial="random")


@pytest.fixture(scope="module")
def adapter(base):
    return reft.initial(base.model, SETTINGS, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 49152, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))


def test_reft_step_over_frozen(paired, base, adapter, ids):
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-6)
    embed = base.model.get_input_embeddings()
    prompt = torch.ones(ROWS, TOKENS, dtype=torch.bool)

    def step() -> None:
        with adapter.learning(base.model) as attachment:
            attachment.begin(torch.arange(ROWS), prompt)
            states = decoder(base.model)(input_ids=ids, use_cache=False).last_hidden_state
            states.float().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        adapter.retract()

    def frozen() -> None:
        states = embed(ids).detach().requires_grad_()
        decoder(base.model)(inputs_embeds=states, use_cache=False).last_hidden_state.float().sum().backward()

    paired(
        "reft_step_over_frozen",
        step,
        frozen,
        inverted=True,
        unit="seconds, a LoReFT step over forward and backward of the frozen model, same attention",
        n=f"{ROWS} × {TOKENS} tokens, rank {RANK}, 30 layers, f1+l1",
    )


def test_reft_fixed_cost(paired, base, adapter):
    interventions = pytest.importorskip(
        "pyreft.interventions", reason="pyreft is not installed: pip install --no-deps pyreft pyvene"
    )
    depth, hidden = len(adapter.layers), base.model.config.hidden_size
    states = torch.randn(ROWS, hidden, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-6)
    modules = [
        interventions.LoreftIntervention(
            embed_dim=hidden, low_rank_dimension=RANK, dtype=torch.float32, add_bias=False, act_fn=None
        )
        for _ in range(2 * depth)
    ]
    other = torch.optim.AdamW([weight for module in modules for weight in module.parameters()], lr=1e-6)

    def ours() -> None:
        tokens = states
        for layer in range(depth):
            first, last = (
                adapter.formula(
                    tokens, adapter.rotation[layer, slot], adapter.weight[layer, slot], adapter.bias[layer, slot]
                )
                for slot in (0, 1)
            )
            tokens = tokens + first + last
        tokens.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        adapter.retract()

    def theirs() -> None:
        tokens = states
        for first, last in zip(modules[::2], modules[1::2], strict=True):
            tokens = tokens + (first(tokens) - tokens) + (last(tokens) - tokens)
        tokens.sum().backward()
        other.step()
        other.zero_grad()

    paired(
        "reft_fixed_cost",
        lambda: repeated(ours),
        lambda: repeated(theirs),
        unit="seconds, pyreft's edits, their gradients and update over ours, the model left out",
        n=f"30 layers × 2 edits of {ROWS} tokens, rank {RANK}",
    )


def repeated(call, times: int = 10) -> float:
    """Seconds a call takes, the mean of several: one alone is a few milliseconds."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def test_reft_generation(paired, base, adapter, prompts):
    endless = Base(base.model, base.tokenizer, frozenset([-1]))  # as many tokens with the edits as without
    asked = prompts(32)

    def edited() -> None:
        with adapter.attached(base.model, None) as attachment:
            generate(Adapted(endless, COMPUTE, attachment), asked, max_new_tokens=48, rows=range(len(asked)))

    def plain() -> None:
        generate(Adapted(endless, COMPUTE), asked, max_new_tokens=48)

    paired(
        "reft_generation",
        edited,
        plain,
        inverted=True,
        unit="seconds, answering with LoReFT attached over the base model",
        n="32 prompts × 48 tokens",
    )
