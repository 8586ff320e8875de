"""Which tokens of a forward pass are the prompt's: those are what an edit of hidden states changes.

Here is what tells the prompt from its answer, the first of these that a pass has:

    prompt_mask       (batch, seq), True on the prompt's tokens: a caller's own word
    past_key_values   with tokens in it: a generated token follows, and nothing is edited
    labels            -100 on the prompt, as trainers on answers set them
    logits_to_keep    n > 1: the last n - 1 tokens are the answer's, as trainers by reward weigh them
    (nothing)         all of it is the prompt, as ``generate`` reads it; refused where gradients are taken
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import BoolTensor, Tensor

from pipeline.core.errors import UserError

IGNORED = -100  # the label of a token that is not learnt


def prompt_of(inputs: Mapping[str, Any], *, learning: bool) -> BoolTensor | None:
    """The prompt's tokens, (batch, seq); None where a pass has none.

    inputs: what the model is called with, by name. learning: gradients of an adapter are taken.
    """
    told = inputs.get("prompt_mask")
    if told is not None:
        return told.bool()
    past = inputs.get("past_key_values")
    if past is not None and int(past.get_seq_length()) > 0:
        return None
    ids = inputs.get("input_ids")
    shape = (ids if ids is not None else inputs["inputs_embeds"]).shape[:2]
    real = _real(inputs.get("attention_mask"), shape, (ids if ids is not None else inputs["inputs_embeds"]).device)
    labels, kept = inputs.get("labels"), inputs.get("logits_to_keep")
    if labels is not None:
        return _in_one_piece(real & (labels == IGNORED), real)
    if isinstance(kept, int) and kept > 1:
        columns = torch.arange(shape[1], device=real.device)
        return real & (columns < shape[1] - (kept - 1))
    if learning:
        raise UserError(
            "expected something that says where the prompt ends, because its tokens are what is edited, got none; give "
            "labels with -100 on the prompt, or prompt_mask"
        )
    return real


def _real(mask: Any, shape: tuple[int, ...], device: torch.device) -> BoolTensor:
    """The tokens that are no padding."""
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        raise UserError(
            "expected an attention_mask of (batch, seq), got another form; call the model with it, or give prompt_mask"
        )
    return mask[:, -shape[1] :].bool()


def _in_one_piece(prompt: BoolTensor, real: BoolTensor) -> BoolTensor:
    """The prompt, if each row has one, before all that is learnt."""
    learnt = real & ~prompt
    behind = prompt & (learnt.cumsum(1) > 0)
    if bool(behind.any()):
        row = int(behind.any(1).nonzero()[0])
        raise UserError(
            f"expected one prompt before one answer in each row, got tokens with label -100 behind learnt ones in row "
            f"{row}; split a talk into one row for each answer, do not pack rows, and give the attention_mask"
        )
    if not bool(prompt.any()):
        raise UserError(
            "expected labels with -100 on the prompt, whose tokens are what is edited, got none of it; train on "
            "answers alone (TRL: rows with 'prompt' and 'completion'), or give prompt_mask"
        )
    return prompt
