"""CS-ReFT: its formula, its router, and what it shares with LoReFT."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.core.errors import UserError
from pipeline.methods import csreft, reft
from pipeline.methods.common import routing
from pipeline.model.forward.adapters import load_adapter, save_adapter
from pipeline.model.forward.base import decoder, decoder_layers
from stages.initialise import chat_tokenizer
from tests.tiny import same_tensors

HIDDEN, RANK, SKILLS = 32, 2, ["one", "two", "three"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def settings(router: dict | None = None, **changes) -> csreft.Settings:
    read = {
        "input": "last_token",
        "layer": 0,
        "gate": "hard",
        "penalty": "sparsity",
        "penalty_weight": 0.1,
        "supervision": 0.0,
        "learning_rate_ratio": 1.0,
    }
    values = {
        "rank": RANK,
        "layers": [1, 2],
        "positions": "f2+l2",
        "tied": False,
        "initial": "random",
        "orthonormal": "across",
        "router": {**read, **(router or {})},
    }
    return csreft.Settings.parse({**values, **changes}, "csreft.adapter")


def made(model, router: dict | None = None, **changes) -> csreft.CsReft:
    return csreft.initial(model, settings(router, **changes), SKILLS, torch.Generator().manual_seed(1))


def batch():
    """Ids (4, 10) and a prompt mask with padding on the left and an answer of two tokens on the right."""
    ids = torch.randint(0, 61, (4, 10), generator=torch.Generator().manual_seed(3))
    place = torch.arange(10)
    starts = torch.tensor([0, 1, 3, 4])[:, None]
    return ids, (place >= starts) & (place < 8), place >= starts


def run(model, adapter, rows=None):
    """Final hidden states of the batch, the gates and their probabilities."""
    ids, prompt, attention = batch()
    with adapter.attached(model, None) as gating:
        gating.begin(torch.arange(4) if rows is None else rows, prompt)
        states = decoder(model)(input_ids=ids, attention_mask=attention).last_hidden_state
        return states, gating.gates, gating.probabilities


def spread_gates(adapter) -> None:
    """A router whose gates differ between prompts: its untrained last layer is too small to close any."""
    with torch.no_grad():
        adapter.router_out_weight.mul_(60)
        adapter.router_out_bias.zero_()


@pytest.mark.parametrize("gate", ["hard", "soft"])
@pytest.mark.parametrize("source", ["last_token", "mean_embedding", "first_token"])
def test_formula_holds_token_by_token(model, source, gate):
    adapter = made(model, {"input": source, "gate": gate})
    spread_gates(adapter)
    with torch.no_grad():
        adapter.bias.normal_(generator=torch.Generator().manual_seed(2))
    ids, prompt, attention = batch()
    seen = {}

    def expected_gates(states):
        for row in range(4):
            places = prompt[row].nonzero().flatten().tolist()
            if source == "last_token":
                read = states[row, places[-1]]
            elif source == "first_token":
                read = states[row, places[0]]
            else:
                read = torch.stack([states[row, place] for place in places]).mean(0)
            read = read / (read.square().mean() + torch.finfo(torch.float32).eps).sqrt()
            inner = (adapter.router_in_weight @ read + adapter.router_in_bias).clamp(min=0)
            probability = 1 / (1 + torch.exp(-(adapter.router_out_weight @ inner + adapter.router_out_bias)))
            seen[row] = (probability > 0.5).float() if gate == "hard" else probability

    def hook(layer):
        def apply(module, args, output):
            output = output.clone()
            for row in range(4):
                places = prompt[row].nonzero().flatten().tolist()
                for number, place in enumerate(places):
                    if number < 2 or number >= len(places) - 2:
                        slot = 0 if number < len(places) - 2 else 1
                        h = output[row, place]
                        added = torch.zeros(HIDDEN)
                        for skill in range(3):
                            part = slice(skill * RANK, (skill + 1) * RANK)
                            rotation = adapter.rotation[layer - 1, slot, part]
                            weight, bias = adapter.weight[layer - 1, slot, part], adapter.bias[layer - 1, slot, part]
                            added += seen[row][skill] * (rotation.T @ (weight @ h + bias - rotation @ h))
                        output[row, place] = h + added
            return output

        return apply

    layers = decoder_layers(model)
    watch = lambda module, args, output: expected_gates(output)  # noqa: E731
    watched = layers[0] if source == "last_token" else model.get_input_embeddings()
    handles = [watched.register_forward_hook(watch)]
    handles += [layers[layer].register_forward_hook(hook(layer)) for layer in (1, 2)]
    with torch.no_grad():
        slow = decoder(model)(input_ids=ids, attention_mask=attention).last_hidden_state
        for handle in handles:
            handle.remove()
        fast, gates, _ = run(model, adapter)
    torch.testing.assert_close(gates, torch.stack([seen[row] for row in range(4)]), atol=1e-5, rtol=0)
    assert len(gates.unique(dim=0)) > 1 or source == "first_token"
    torch.testing.assert_close(fast[attention], slow[attention], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("orthonormal", ["within", "across"])
def test_one_subspace_with_an_open_gate_equals_loreft_to_the_bit(model, orthonormal):
    router = {"input": "none"}
    single = csreft.initial(
        model, settings(router, orthonormal=orthonormal), ["only"], torch.Generator().manual_seed(1)
    )
    plain = reft.from_state(
        {"formula": "loreft", "layers": [1, 2], "positions": "f2+l2", "tied": False},
        {name: tensor.clone() for name, tensor in single.state().items()},
    )
    ids, prompt, attention = batch()
    optimizers = [torch.optim.AdamW(adapter.parameters(), lr=0.01) for adapter in (single, plain)]
    for _ in range(3):
        outputs = []
        for adapter, optimizer in zip((single, plain), optimizers, strict=True):
            with adapter.attached(model, None) as attachment:
                attachment.begin(torch.arange(4), prompt)
                states = decoder(model)(input_ids=ids, attention_mask=attention).last_hidden_state
            optimizer.zero_grad()
            states.square().sum().backward()
            optimizer.step()
            adapter.retract()
            outputs.append(states)
        assert torch.equal(*outputs)
    assert same_tensors(single.state(), plain.state())


def test_a_hard_gate_that_is_open_changes_no_bit(model):
    gated = csreft.initial(model, settings(), ["only"], torch.Generator().manual_seed(1))
    with torch.no_grad():
        gated.router_out_bias.fill_(50.0)
        gated.router_out_weight.zero_()
    tensors = {name: tensor for name, tensor in gated.state().items() if not name.startswith("router_")}
    plain = reft.from_state({"formula": "loreft", "layers": [1, 2], "positions": "f2+l2", "tied": False}, tensors)
    with torch.no_grad():
        assert torch.equal(run(model, gated)[0], _states(model, plain))


def _states(model, adapter):
    ids, prompt, attention = batch()
    with adapter.attached(model, None) as attachment:
        attachment.begin(torch.arange(4), prompt)
        return decoder(model)(input_ids=ids, attention_mask=attention).last_hidden_state


@pytest.mark.parametrize("orthonormal", ["within", "across"])
def test_subspaces_are_orthonormal_after_a_thousand_steps(model, orthonormal):
    adapter = made(model, {"gate": "soft"}, orthonormal=orthonormal)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.01)
    ids, prompt, attention = (tensor[:1] for tensor in batch())
    with adapter.attached(model, None) as gating:
        for _ in range(1000):
            gating.begin(torch.arange(1), prompt)
            states = decoder(model)(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state
            optimizer.zero_grad()
            states[:, -1].square().sum().backward()
            optimizer.step()
            adapter.retract()
    products = (adapter.rotation @ adapter.rotation.mT).detach()
    blocks = products.unflatten(-2, (3, RANK)).unflatten(-1, (3, RANK))
    for skill in range(3):
        own = blocks[..., skill, :, skill, :]
        torch.testing.assert_close(own, torch.eye(RANK).expand_as(own), atol=1e-5, rtol=0)
    assert torch.allclose(products, torch.eye(3 * RANK).expand_as(products), atol=1e-5) == (orthonormal == "across")


def test_hard_gates_have_the_straight_through_gradient():
    logits = torch.tensor([[-2.0, 0.3], [1.5, -0.1]], requires_grad=True)
    probabilities = logits.sigmoid()
    gates = routing.hard_gate(probabilities)
    assert gates.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    upstream = torch.tensor([[0.7, -1.0], [2.0, 0.5]])
    (gradient,) = torch.autograd.grad((gates * upstream).sum(), logits)
    p = probabilities.detach()
    torch.testing.assert_close(gradient, upstream * p * (1 - p))


def test_a_closed_gate_still_teaches_the_router(model):
    adapter = made(model)
    with torch.no_grad():
        adapter.router_out_bias.fill_(-1.0)
    states, gates, _ = run(model, adapter)
    assert gates.sum() == 0
    states.square().sum().backward()
    assert adapter.router_out_bias.grad.abs().sum() > 0 and adapter.weight.grad.abs().sum() == 0


def test_first_token_router_cannot_tell_prompts_apart_under_a_chat_template(model):
    # Real chats: whatever is asked, the rendered prompt begins with the same token.
    tokenizer = chat_tokenizer(
        ["What is the sum of two and three? Who is the oldest of them? Write a function."] * 20, 96
    )
    asked = ("What is the sum of two and three?", "Who is the oldest of them?", "Write a function.")
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in asked
    ]
    prompts = [[token % 61 for token in prompt] for prompt in prompts]  # the model's vocabulary
    assert len({prompt[0] for prompt in prompts}) == 1 and len({tuple(prompt) for prompt in prompts}) == 3
    spread = {}
    for source in ("first_token", "mean_embedding", "last_token"):
        adapter = made(model, {"input": source})
        spread_gates(adapter)
        _, probabilities = csreft.gates(adapter, model, prompts, batch_tokens=512)
        spread[source] = probabilities.std(dim=0).max().item()
    assert spread["first_token"] == 0
    assert spread["mean_embedding"] > 0.01 and spread["last_token"] > 0.01


def test_a_closed_subspace_and_the_base_are_one(model):
    adapter = made(model)
    with torch.no_grad():
        adapter.router_out_bias.fill_(-50.0)
        ids, _, attention = batch()
        base = decoder(model)(input_ids=ids, attention_mask=attention).last_hidden_state
        assert torch.equal(run(model, adapter)[0], base)


def test_penalties_are_as_defined():
    probabilities = torch.tensor([[0.2, 0.8], [0.4, 0.6]])
    torch.testing.assert_close(routing.sparsity(probabilities), torch.tensor(1.0))
    opening = torch.tensor([0.3, 0.7])
    torch.testing.assert_close(routing.balance(probabilities), ((opening - 0.5) ** 2).mean() / 0.25)


def test_extra_loss_is_penalty_plus_cross_entropy_with_the_skills(model):
    adapter = made(model, {"supervision": 0.5})
    adapter.supervise([2, 0, 1, 1, 0])
    rows = torch.tensor([4, 2, 1, 0])
    ids, prompt, attention = batch()
    with adapter.attached(model, None) as gating:
        gating.begin(rows, prompt)
        decoder(model)(input_ids=ids, attention_mask=attention)
        loss = adapter.extra_loss()
        p = gating.probabilities
    expected = 0.1 * p.sum(1).mean()
    for row, skill in enumerate([0, 1, 0, 2]):
        for gate in range(3):
            chance = p[row, gate] if gate == skill else 1 - p[row, gate]
            # the one gate that should open weighs as much as the two that should close
            expected = expected - 0.5 * chance.log() / 4 / (2 if gate == skill else 4)
    torch.testing.assert_close(loss, expected)


def test_supervision_without_skills_is_refused(model):
    adapter = made(model, {"supervision": 0.5})
    ids, prompt, attention = batch()
    with adapter.attached(model, None) as gating, pytest.raises(UserError, match="skills of the training prompts"):
        gating.begin(torch.arange(4), prompt)
        decoder(model)(input_ids=ids, attention_mask=attention)
        adapter.extra_loss()


def test_told_gates_train_a_subspace_on_its_own_skill_alone_and_answers_are_the_routers(model):
    adapter = made(model, {"gate": "told", "supervision": 0.5})
    adapter.supervise([2, 0, 1, 1, 0])
    with torch.no_grad():
        adapter.router_out_bias.copy_(torch.tensor([50.0, -50.0, -50.0]))
    ids, prompt, attention = batch()
    for row, skill in enumerate([2, 0, 1]):
        with adapter.learning(model) as gating:
            gating.begin(torch.tensor([row] * 4), prompt)
            states = decoder(model)(input_ids=ids, attention_mask=attention).last_hidden_state
            assert gating.gates.tolist() == [[float(place == skill) for place in range(3)]] * 4
            (gradient,) = torch.autograd.grad(states.square().sum(), adapter.weight)
            moved = gradient.unflatten(2, (3, RANK)).abs().sum((0, 1, 3, 4)) > 0
            assert moved.tolist() == [place == skill for place in range(3)]
            assert adapter.extra_loss().requires_grad  # the router learns beside
            with torch.no_grad():  # as in validation, and in use
                gating.begin(torch.tensor([row] * 4), prompt)
                decoder(model)(input_ids=ids, attention_mask=attention)
                assert gating.gates.tolist() == [[1.0, 0.0, 0.0]] * 4
                assert gating.alike(torch.arange(3)) is None
            assert gating.alike(torch.arange(5)) == [2, 0, 1, 1, 0]


@pytest.mark.parametrize("changes", [{"supervision": 0.0}, {"input": "mean_embedding"}])
def test_told_gates_without_what_they_need_are_refused(model, changes):
    with pytest.raises(UserError, match="supervision above 0 and input 'last_token' with gate 'told'"):
        made(model, {"gate": "told", "supervision": 0.5, **changes})


def test_a_router_after_the_first_edit_is_refused(model):
    with pytest.raises(UserError, match="the first edited layer"):
        made(model, {"layer": 2})


def test_decode_steps_are_not_edited_and_base_is_bit_identical_after_detaching(model):
    adapter = made(model)
    ids, _, attention = batch()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        before = decoder(model)(input_ids=ids, attention_mask=attention).last_hidden_state
        assert not torch.equal(run(model, adapter)[0], before)
        with adapter.attached(model, None) as gating:
            gating.begin(torch.arange(4), None)
            assert torch.equal(decoder(model)(input_ids=ids, attention_mask=attention).last_hidden_state, before)
        assert torch.equal(decoder(model)(input_ids=ids, attention_mask=attention).last_hidden_state, before)
    assert same_tensors(dict(model.state_dict()), weights)


def test_saved_and_loaded_adapter_is_the_same(model, tmp_path):
    adapter = made(model)
    spread_gates(adapter)
    save_adapter(tmp_path / "csreft.safetensors", adapter, {"method": "csreft"})
    loaded, _ = load_adapter(tmp_path / "csreft.safetensors")
    assert loaded.config() == adapter.config() and same_tensors(loaded.state(), adapter.state())
    with torch.no_grad():
        for one, other in zip(run(model, loaded), run(model, adapter), strict=True):
            assert torch.equal(one, other)


def test_gates_of_prompts_do_not_depend_on_their_batch(model):
    adapter = made(model)
    spread_gates(adapter)
    prompts = [list(range(1, 1 + length)) for length in (9, 4, 6)]
    gates, probabilities = csreft.gates(adapter, model, prompts, batch_tokens=64)
    for row, prompt in enumerate(prompts):
        alone, chance = csreft.gates(adapter, model, [prompt], batch_tokens=64)
        assert torch.equal(alone[0], gates[row])
        torch.testing.assert_close(chance[0], probabilities[row], atol=1e-5, rtol=0)


def test_router_parameters_are_counted_apart(model):
    adapter = made(model)
    half = HIDDEN // 2
    assert adapter.router_parameters == half * HIDDEN + half + 3 * half + 3
    edits = 2 * 2  # layers, slots
    total = sum(parameter.numel() for parameter in adapter.parameters())
    assert total - adapter.router_parameters == edits * 3 * (2 * RANK * HIDDEN + RANK)
