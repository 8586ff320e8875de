"""The worked example of ``pipeline.training.packing`` and ``pipeline.training.layout``, as it stands there."""

import torch

from pipeline.training.layout import Group, lay_out
from pipeline.training.packing import pack

P, A, B, C, END = 11, 12, 13, 14, 2
EXAMPLE = Group([P], [[A, B, END], [A, C, END]])


def test_two_answers_that_begin_alike_share_a_row_and_a_token():
    assert EXAMPLE.common == [[2, 1], [1, 2]]
    layout = lay_out([EXAMPLE], 0)
    assert (layout.first, layout.others, layout.tokens) == (((0, 1),), (), 4)


def test_each_branch_sees_the_prompt_its_root_and_itself():
    packed = pack([EXAMPLE], device=torch.device("cpu"))
    assert packed.beginnings is None and packed.others is None
    assert packed.rests.ids.tolist() == [[P, A, B, C]]
    assert packed.rests.positions.tolist() == [[0, 1, 2, 2]]
    assert packed.rests.mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    assert packed.prompt_mask.tolist() == [[True, False, False, False]]


def test_a_state_predicts_the_next_token_of_every_answer_it_leads_to():
    packed = pack([EXAMPLE], device=torch.device("cpu"))
    assert packed.states.tolist() == [0, 1, 2, 3]
    assert packed.state.tolist() == [0, 1, 2, 0, 1, 3]
    assert packed.target.tolist() == [A, B, END, A, C, END]
    assert packed.answer.tolist() == [0, 0, 0, 1, 1, 1] and packed.answers == 2


def test_a_long_answer_that_would_pad_all_rows_stands_in_a_pass_of_its_own():
    long = [[letter] * 9 + [END] for letter in (A, B)]
    groups = [Group([P] * 2, long), *(Group([P] * 2, [long[0]]) for _ in range(3))]
    packed = pack(groups, device=torch.device("cpu"))
    assert packed.rests.ids.shape == (4, 11) and packed.others is not None and packed.others.back.tolist() == [0]
    read = torch.cat([packed.rests.ids.flatten(), packed.others.ids.flatten()])
    before = read[packed.states][packed.state]  # the token that each answer's token is predicted behind
    assert (
        packed.target[packed.answer == 0].tolist() == long[0] and packed.target[packed.answer == 1].tolist() == long[1]
    )
    assert before[packed.answer == 0].tolist() == [P, *long[0][:-1]]
    assert before[packed.answer == 1].tolist() == [P, *long[1][:-1]]
