"""Where edits go and what keeps R orthonormal."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

from pipeline.core.errors import UserError
from pipeline.methods import csreft, reft
from pipeline.methods.common.edits import (
    Positions,
    choose_layers,
    find_spots,
    orthonormalised,
    random_orthonormal,
    stack_of,
)
from tests.unit.methods.test_csreft import settings as csreft_settings
from tests.unit.methods.test_reft import settings as reft_settings


def spots_of(mask_rows: list[str], positions: str, slots: int) -> list[set[tuple[int, int]]]:
    """The (row, column) of the edited tokens of each slot; ``p`` in a row is a prompt token."""
    mask = torch.tensor([[letter == "p" for letter in row] for row in mask_rows])
    spots = find_spots(mask, Positions.parse(positions), slots)
    pairs = list(zip(spots.rows.tolist(), spots.columns.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    return [set(pairs[part]) for part in spots.slots]


def test_positions_are_read_and_anything_else_is_refused():
    assert (Positions.parse("f7+l5").first, Positions.parse("f7+l5").last) == (7, 5)
    assert (Positions.parse("f1").first, Positions.parse("f1").last) == (1, 0)
    assert (Positions.parse("l3").first, Positions.parse("l3").last) == (0, 3)
    for wrong in ("", "7", "f7l7", "l7+f7", "f0", "f1+", "+l1", "f0+l0"):
        with pytest.raises(UserError, match="expected positions"):
            Positions.parse(wrong)


def test_spots_are_the_first_and_last_prompt_tokens_under_either_padding():
    right, left = "ppppp...", "..ppppp."
    assert spots_of([right, left], "f1+l2", 2) == [{(0, 0), (1, 2)}, {(0, 3), (0, 4), (1, 5), (1, 6)}]
    assert spots_of([right, left], "f1+l2", 1) == [{(0, 0), (1, 2), (0, 3), (0, 4), (1, 5), (1, 6)}]


def test_a_prompt_shorter_than_its_positions_is_edited_once_a_token_suffix_first():
    assert spots_of(["ppp.."], "f2+l2", 2) == [{(0, 0)}, {(0, 1), (0, 2)}]
    assert spots_of(["pp..."], "f3+l3", 2) == [set(), {(0, 0), (0, 1)}]
    assert spots_of(["ppp.."], "f7+l7", 1) == [{(0, 0), (0, 1), (0, 2)}]


def test_layers_are_all_or_listed_and_must_exist():
    assert choose_layers("all", 3) == (0, 1, 2)
    assert choose_layers((2, 0), 3) == (0, 2)
    for wrong in ((3,), (-1,), ()):
        with pytest.raises(UserError, match="expected layers from 0 to 2"):
            choose_layers(wrong, 3)


def test_orthonormalising_gives_the_nearest_orthonormal_matrix():
    generator = torch.Generator().manual_seed(0)
    start = random_orthonormal((2, 4, 16), generator)
    torch.testing.assert_close(start @ start.mT, torch.eye(4).expand(2, 4, 4), atol=1e-6, rtol=0)
    moved = start + 0.1 * torch.randn(2, 4, 16, generator=generator)
    left, _, right = torch.linalg.svd(moved, full_matrices=False)
    torch.testing.assert_close(orthonormalised(moved), left @ right, atol=1e-5, rtol=0)
    torch.testing.assert_close(orthonormalised(start), start, atol=1e-6, rtol=0)


def test_more_orthonormal_directions_than_dimensions_are_refused():
    with pytest.raises(UserError, match="at most 4 orthonormal directions"):
        random_orthonormal((5, 4), torch.Generator())


SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = (LlamaConfig, Qwen2Config, Qwen3Config, MistralConfig, Gemma2Config, Gemma3TextConfig, GPT2Config)


def made_model(config: type) -> nn.Module:
    torch.manual_seed(0)
    maker = AutoModel if config is RobertaConfig else AutoModelForCausalLM
    return maker.from_config(config(**SHAPE)).eval().requires_grad_(False)


@pytest.mark.parametrize("config", [*FAMILIES, RobertaConfig], ids=lambda config: config.model_type)
def test_the_models_of_transformers_are_edited_where_their_last_layer_ends(config):
    model = made_model(config)
    stack = stack_of(model, None)
    assert len(stack) == 3
    left = []
    handle = stack[2].register_forward_hook(lambda module, args, output: left.append(output))
    ids, prompt = torch.arange(3, 11)[None], torch.arange(8)[None] < 6
    draw = torch.Generator().manual_seed(1)
    edits = reft.initial(model, reft_settings(layers=[2], positions="f1+l2"), draw)
    composed = csreft.initial(model, csreft_settings(layers=[2], positions="f1+l2"), ["one", "two"], draw)
    with torch.no_grad():
        model(input_ids=ids)
        for adapter in (edits, composed):
            with adapter.attached(model, None) as attachment:
                handle.remove()  # behind the edits' own hook
                handle = stack[2].register_forward_hook(lambda module, args, output: left.append(output))
                attachment.begin(torch.arange(1), prompt)
                model(input_ids=ids)
    handle.remove()
    plain, *edited = [one[0] if isinstance(one, tuple) else one for one in left]
    for one in edited:
        assert (one != plain).any(dim=-1)[0].nonzero().flatten().tolist() == [0, 4, 5]


def test_layers_in_an_unknown_place_are_named_by_a_pattern():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.ModuleDict({f"part{number}": nn.Identity() for number in range(4)})

        def get_decoder(self) -> nn.Module:
            return self

    model = Odd()
    assert stack_of(model, "trunk.part{layer}") == list(model.trunk.values())
    with pytest.raises(UserError, match="name them by layer_names in params.yaml"):
        stack_of(model, None)
    for wrong in ("trunk.block{layer}", "trunk.part0"):
        with pytest.raises(UserError, match="'{layer}', got '.*', which names none"):
            stack_of(model, wrong)
