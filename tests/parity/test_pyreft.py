"""LoReFT, DiReFT and NoReFT against pyreft's own intervention modules, in float32 with the same weights.

pyreft's trainer and its model wrapper do not run on current transformers; its intervention modules do. They are put
behind the layers by a plain hook here. Wants ``pip install --no-deps pyreft pyvene``; skipped where they are missing.
"""

from contextlib import ExitStack, contextmanager

import pytest
import torch

from pipeline.methods import reft
from pipeline.model.decoding.answer import generate
from pipeline.model.forward.base import Adapted, decoder, decoder_layers
from tests.tiny import tiny_base, tiny_compute

interventions = pytest.importorskip(
    "pyreft.interventions", reason="pyreft is not installed: pip install --no-deps pyreft pyvene"
)
CLASSES = {
    "loreft": interventions.LoreftIntervention,
    "direft": interventions.NodireftIntervention,  # W₂ᵀ(W₁h + b) with W₂ free, as the paper writes DiReFT
    "noreft": interventions.NoreftIntervention,
}
RANK = 3
LENGTHS = (14, 19, 23)  # of the prompts: at least the 7 + 7 edited tokens


@pytest.fixture(scope="module")
def base():
    return tiny_base()


def made(base, formula: str, positions: str, tied: bool) -> reft.Reft:
    settings = {
        "formula": formula,
        "rank": RANK,
        "layers": "all",
        "positions": positions,
        "tied": tied,
        "initial": "random",
    }
    adapter = reft.initial(base.model, reft.Settings.parse(settings, "reft.adapter"), torch.Generator().manual_seed(1))
    with torch.no_grad():
        adapter.bias.normal_(generator=torch.Generator().manual_seed(2))
    return adapter


def theirs(adapter: reft.Reft, formula: str, layer: int, slot: int) -> torch.nn.Module:
    """pyreft's module with our weights of one layer and slot."""
    hidden = adapter.rotation.shape[-1]
    module = CLASSES[formula](
        embed_dim=hidden, low_rank_dimension=RANK, dtype=torch.float32, add_bias=False, act_fn=None
    )
    with torch.no_grad():
        module.learned_source.weight.copy_(adapter.weight[layer, slot])
        module.learned_source.bias.copy_(adapter.bias[layer, slot])
        if formula == "loreft":
            module.rotate_layer.weight = adapter.rotation[layer, slot].T.clone()
            torch.testing.assert_close(module.rotate_layer.weight, adapter.rotation[layer, slot].T, atol=1e-6, rtol=0)
        else:
            module.proj_layer.weight.copy_(adapter.rotation[layer, slot])
    return module.eval()


@contextmanager
def hooked(base, adapter, formula: str, first: int, last: int, tied: bool, starts: list[int], ends: list[int]):
    """pyreft's modules behind every layer, at the first and last tokens of prompts from ``starts`` to ``ends``."""

    def edited(layer: int):
        modules = [theirs(adapter, formula, layer, 0 if tied else slot) for slot in (0, 1)]

        def hook(_, args, output):
            states = (output[0] if isinstance(output, tuple) else output).clone()
            if states.shape[1] < max(ends):
                return None  # a decode step
            for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
                for places, intervention in (
                    (slice(start, start + first), modules[0]),
                    (slice(end - last, end), modules[1]),
                ):
                    states[row : row + 1, places] = intervention(states[row : row + 1, places])
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return hook

    with ExitStack() as stack:
        for layer, module in enumerate(decoder_layers(base.model)):
            stack.callback(module.register_forward_hook(edited(layer)).remove)
        yield


def padded(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and mask of prompts of LENGTHS."""
    generator = torch.Generator().manual_seed(3)
    width = max(LENGTHS)
    ids, mask = torch.zeros(len(LENGTHS), width, dtype=torch.long), torch.zeros(len(LENGTHS), width, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        places = slice(width - length, width) if side == "left" else slice(length)
        ids[row, places] = torch.randint(3, 61, (length,), generator=generator)
        mask[row, places] = True
    return ids, mask


@pytest.mark.parametrize("formula", ["loreft", "direft", "noreft"])
@pytest.mark.parametrize(("first", "last"), [(1, 1), (7, 7)])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_hidden_states_are_those_of_pyreft(base, formula, first, last, tied, side):
    adapter = made(base, formula, f"f{first}+l{last}", tied)
    ids, mask = padded(side)
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def states():
        return decoder(base.model)(input_ids=ids, attention_mask=mask.long(), position_ids=positions).last_hidden_state

    with adapter.attached(base.model, None) as attachment:
        attachment.begin(torch.arange(len(ids)), mask)
        ours = states()
    starts = [int(row.float().argmax()) for row in mask]
    with hooked(
        base, adapter, formula, first, last, tied, starts, [s + n for s, n in zip(starts, LENGTHS, strict=True)]
    ):
        expected = states()
    assert not torch.allclose(expected, states())  # the edits do something
    torch.testing.assert_close(ours[mask], expected[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("formula", ["loreft", "direft", "noreft"])
def test_batched_generation_is_unbatched_generation_with_pyreft(base, formula):
    adapter = made(base, formula, "f7+l7", False)
    ids, mask = padded("right")
    prompts = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
    with adapter.attached(base.model, None) as attachment:
        ours = generate(Adapted(base, tiny_compute(1000, 1000), attachment), prompts, max_new_tokens=8)
    for prompt, (answer,) in zip(prompts, ours, strict=True):
        with hooked(base, adapter, formula, 7, 7, False, [0], [len(prompt)]):
            found = base.model.generate(
                input_ids=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=8,
                do_sample=False,
            )[0, len(prompt) :].tolist()
        assert list(answer.ids) == found[: len(answer.ids)]
