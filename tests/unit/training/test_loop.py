"""The loop of every training: its schedule, its orders, its patience, and going on after a kill."""

import math

import pytest
import torch
from torch import nn

from pipeline.core import progress
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.flow import live
from pipeline.flow.reporter import Watched
from pipeline.training import loop
from pipeline.training.loop import Data, Optimisation, Training
from tests.tiny import OPTIMISATION, same_tensors


def settings(**changes) -> Optimisation:
    return Optimisation.parse({**OPTIMISATION, **changes}, "training")


def rates(steps: int = 10, **changes) -> list[float]:
    chosen = settings(steps=steps, learning_rate=0.02, **changes)
    return [loop.learning_rate(step, chosen) for step in range(1, steps + 1)]


@pytest.mark.parametrize(
    ("schedule", "left"),
    [
        ("constant", lambda done: 1.0),
        ("linear", lambda done: 1 - done),
        ("cosine", lambda done: (1 + math.cos(math.pi * done)) / 2),
    ],
)
def test_the_rate_follows_its_schedule_and_rises_over_the_warmup(schedule, left):
    assert rates(schedule=schedule, warmup=0.0) == pytest.approx([0.02 * left(step / 10) for step in range(10)])
    warm = rates(schedule=schedule, warmup=0.2)
    assert warm[:3] == pytest.approx([0.01, 0.02, 0.02])
    assert warm[2:] == pytest.approx([0.02 * left(step / 8) for step in range(8)])


def test_every_step_may_be_warmup():
    assert rates(steps=4, schedule="linear", warmup=1.0) == pytest.approx([0.005, 0.01, 0.015, 0.02])


@pytest.mark.parametrize("shuffles", [loop.seeded_shuffles, loop.successive_shuffles])
def test_an_order_is_whole_shuffles_and_a_function_of_the_seed(shuffles):
    def order(seed: int) -> list[int]:
        shuffle = shuffles(5, seed)
        return [row for step in range(1, 5) for row in loop.order_of(step, 3, 5, shuffle)]

    rows = order(3)
    assert sorted(rows[:5]) == sorted(rows[5:10]) == list(range(5)) and len(rows) == 12
    assert rows[:5] != rows[5:10]
    assert rows == order(3) != order(4)
    assert loop.order_of(3, 3, 5, shuffles(5, 3)) == rows[6:9]  # known without the steps before


class Weight:
    """A learner of one number."""

    def __init__(self, start: float = 0.0) -> None:
        self.weight = nn.Parameter(torch.tensor([start]))
        self.retracted = 0

    def parameters(self):
        return [self.weight]

    def state(self):
        return {"weight": self.weight.detach()}

    def load_state(self, state):
        with torch.no_grad():
            self.weight.copy_(state["weight"])

    def retract(self):
        self.retracted += 1


class Killed(BaseException):
    pass


class Upwards:
    """An objective whose gradient is always the same, and whose validations are given."""

    facts = {"objective": "upwards"}  # noqa: RUF012

    def __init__(self, learner: Weight, validations, dies_at: int = 0) -> None:
        self.learner, self.validations, self.dies_at = learner, validations, dies_at
        self.steps: list[int] = []

    def gradient(self, step):
        self.steps.append(step)
        if step == self.dies_at:
            raise Killed
        (-self.learner.weight.sum()).backward()
        return {"height": float(self.learner.weight.detach())}

    def row(self, measured, norm):
        return {"train": measured["height"], "norm": norm}

    def validate(self):
        return {"validation": self.validations(len(self.steps), float(self.learner.weight.detach()))}

    def merit(self, validated):
        return (validated["validation"],)


def run(tmp_path, validations, dies_at: int = 0, **changes):
    learner = Weight()
    objective = Upwards(learner, validations, dies_at)
    training = Training(settings(**changes), seed=0, checkpoints=Checkpoints(tmp_path))
    return learner, objective, loop.optimise(learner, objective, training=training, name="upwards")


def test_the_earliest_of_the_best_states_is_kept(tmp_path):
    values = {0: 0.1, 2: 0.7, 4: 0.7, 6: 0.2}
    learner, _, done = run(tmp_path, lambda step, _: values[step], steps=6, validate_every=2)
    assert done.best_step == 2 and [row["step"] for row in done.rows() if row["chosen"]] == [2]
    assert learner.state()["weight"].item() == pytest.approx(done.curve[3]["train"])  # what step 3 began with
    assert not any(row["chosen"] for row in done.rows(chosen=False))
    assert [row["validation"] for row in done.curve] == [0.1, None, 0.7, None, 0.7, None, 0.2]
    assert done.curve[0] == {"step": 0, "train": None, "validation": 0.1, "objective": "upwards"}
    assert learner.retracted == 6


@pytest.mark.parametrize(("patience", "steps"), [(0, 1), (1, 2), (2, 3), (9, 6)])
def test_a_training_ends_when_patience_does(tmp_path, patience, steps):
    _, objective, done = run(tmp_path, lambda step, _: -step, steps=6, validate_every=1, patience=patience)
    assert objective.steps == list(range(1, steps + 1)) and done.best_step == 0


def test_a_new_best_renews_patience(tmp_path):
    values = [0, -1, 1, 0, 0, 2]
    _, objective, done = run(tmp_path, lambda step, _: values[step], steps=5, validate_every=1, patience=1)
    assert objective.steps == [1, 2, 3, 4] and done.best_step == 2


@pytest.mark.parametrize(("every", "again"), [(1, [5, 6]), (2, [5, 6]), (4, [5, 6]), (6, [1, 2, 3, 4, 5, 6])])
def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path, every, again):
    given = {"steps": 6, "validate_every": 2, "checkpoint_every": every, "weight_decay": 0.1}
    undisturbed, _, whole = run(tmp_path / "a", lambda _, height: -abs(height - 0.05), **given)
    with pytest.raises(Killed):
        run(tmp_path / "b", lambda _, height: -abs(height - 0.05), dies_at=5, **given)
    resumed, objective, done = run(tmp_path / "b", lambda _, height: -abs(height - 0.05), **given)
    assert objective.steps == again
    assert same_tensors(resumed.state(), undisturbed.state()) and done.rows() == whole.rows()


def test_a_training_that_has_ended_is_not_done_again(tmp_path):
    for _ in range(2):
        _, objective, done = run(tmp_path, lambda step, _: -step, steps=6, validate_every=1, patience=1)
    assert objective.steps == [] and len(done.curve) == 3


def test_what_is_not_finite_stops_with_a_sentence(tmp_path):
    learner = Weight()
    learner.weight.grad = torch.tensor([float("nan")])
    optimizer = torch.optim.AdamW(loop._groups(learner))
    with pytest.raises(UserError, match="expected a finite gradient at step 3 of the training, got nan; lower the"):
        loop.update(learner, optimizer, step=3, settings=settings())
    with pytest.raises(UserError, match="expected a finite validation at step 0"):
        run(tmp_path, lambda *_: math.inf)
    with pytest.raises(UserError, match="expected a finite height at step 2"):
        loop.required_finite(2, {"width": 1.0, "height": math.nan})


def test_no_examples_is_an_error_in_one_sentence():
    one = Example("0", (), "")
    Data([one], [one]).required()
    with pytest.raises(UserError, match="expected training and validation examples, got 1 and 0; raise their numbers"):
        Data([one], []).required()


@pytest.mark.parametrize(("setting", "value"), [("steps", 0), ("validate_every", 0), ("warmup", 1.5), ("patience", -1)])
def test_settings_that_mean_nothing_are_refused(setting, value):
    with pytest.raises(UserError, match=f"'training.{setting}' does not fit"):
        settings(**{setting: value})


def test_who_looks_on_hears_the_numbers_of_each_step(tmp_path, monkeypatch):
    """The form of the note is what ``pipeline.flow.live`` reads."""
    monkeypatch.chdir(tmp_path)
    before, reporter = progress._reporter, Watched("train_svf@toy")
    progress.report_to(reporter)
    try:
        _, _, done = run(tmp_path, lambda step, weight: -1.5, steps=3, validate_every=1)
        told = live.read("train_svf@toy")
    finally:
        progress.report_to(before)
        reporter.close()
    rows = [{"train": round(row["train"], 3), "validation": -1.5} for row in done.curve[1:]]
    assert told.name == "train (upwards)" and (told.done, told.total) == (3, 3)
    assert [numbers for _, numbers in told.curve] == rows
