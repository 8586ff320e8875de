"""The optimizers against torch's own, and what one second moment for many coordinates is for."""

import pytest
import torch
from torch import nn

from pipeline.training.optimizers import optimizer_of
from pipeline.training.reinforce import Reinforce
from tests.tiny import REINFORCE


def settings(name: str, **changes) -> Reinforce:
    return Reinforce.parse({**REINFORCE, "optimizer": name, "learning_rate": 0.1, **changes}, "reinforce")


def walked(name: str, gradients, parts=(), **changes) -> torch.Tensor:
    """Where an optimizer comes to from (1, 1, ...), by these gradients."""
    parameter = nn.Parameter(torch.ones(len(gradients[0])))
    optimizer = optimizer_of([{"params": [parameter]}], settings(name, **changes), {parameter: parts} if parts else {})
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach()


GRADIENTS = [[0.3, -2.0], [0.1, 1.0], [-0.4, 0.5]]


def test_a_part_of_one_coordinate_each_is_adamw():
    shared = walked("adam_shared", GRADIENTS, parts=[1, 1], weight_decay=0.1)
    torch.testing.assert_close(shared, walked("adamw", GRADIENTS, weight_decay=0.1))


def test_parts_keep_the_proportions_of_their_coordinates():
    """The first step: AdamW moves all by the rate; a shared second moment moves them in proportion to the gradient."""
    gradient = [[0.1, 0.3, 8.0]]
    adamw = 1 - walked("adamw", gradient)
    shared = 1 - walked("adam_shared", gradient, parts=[2, 1])
    torch.testing.assert_close(adamw, torch.tensor([0.1, 0.1, 0.1]))
    root = (0.5 * (0.1**2 + 0.3**2)) ** 0.5
    torch.testing.assert_close(shared, torch.tensor([0.1 * 0.1 / root, 0.1 * 0.3 / root, 0.1]))


def test_without_parts_a_tensor_is_one():
    torch.testing.assert_close(walked("adam_shared", GRADIENTS), walked("adam_shared", GRADIENTS, parts=[2]))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_gradient_descent_has_momentum_and_no_scale(momentum):
    at, velocity = torch.ones(2), torch.zeros(2)
    for gradient in GRADIENTS:
        velocity = momentum * velocity + torch.tensor(gradient)
        at = at - 0.1 * velocity
    torch.testing.assert_close(walked("sgd", GRADIENTS, momentum=momentum), at)
