"""All methods on one GPU, and on two that share a model, all pretended: trained, resumed, adapted, served."""

from dataclasses import replace

import pytest
import torch

from pipeline.core.types import Mixture
from pipeline.methods import lora, reft
from pipeline.methods.svf import SvfAdapter, population
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.repetition import Repetition
from pipeline.model.decoding.sampling import Sampling
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.base import Adapted, Base
from pipeline.model.forward.spread import spread
from pipeline.serving.choosing import Options
from pipeline.serving.engine import Engine
from pipeline.serving.jobs import Answered, Job
from pipeline.serving.rows import Resident, Way
from stages import (
    classify,
    factorize,
    fit_classifier,
    grow_skills,
    merge,
    train_csreft,
    train_head,
    train_reinforce,
    train_skills,
    train_supervised,
    train_svf,
)
from stages import generate as answer
from tests.device.pretended import CPU, Mismatch
from tests.tiny import END, Numbers, tiny_compute, tiny_factors, tiny_model
from tests.unit.training.conftest import EDITS, LOW_RANK, TRAINING


def on_gpu(gpus: int = 1):
    model = tiny_model()
    if gpus == 1:
        model.to("cuda")
    else:
        spread(model, model.model, [torch.device("cuda", number) for number in range(gpus)])
    return Adapted(Base(model, Numbers(), frozenset([END])), tiny_compute())


@pytest.fixture(params=[1, 2], ids=["one GPU", "two GPUs"])
def gpus(request):
    return request.param


METHODS = {
    "dora": {"adapter": LOW_RANK, "training": TRAINING},
    "ia3": {"adapter": {"modules": ["k_proj", "down_proj"], "feedforward": ["down_proj"]}, "training": TRAINING},
    "tinylora": {"adapter": {"rank": 2, "size": 3, "tying": 0.5, "modules": ["q_proj"]}, "training": TRAINING},
}
ROWS = {name: {} for name in METHODS}
PROMPTS = [[1, *range(3, 3 + length)] for length in (9, 5, 7)]


def test_what_cuda_would_raise_is_raised(cuda):
    one, other = torch.ones(3, device="cuda"), torch.ones(3)
    assert (one.device.type, other.device.type, (one * 2).device.type, one[:2].is_cuda) == ("cuda", "cpu", "cuda", True)
    with pytest.raises(Mismatch, match="tensors on cpu, cuda:0"):
        one + other
    with pytest.raises(Mismatch, match="numpy of a tensor"):
        one.numpy()
    with pytest.raises(Mismatch, match="indices on cuda:0 of a tensor on cpu"):
        other[torch.tensor([0], device="cuda")]
    assert (one + other.to(one)).cpu().tolist() == [2, 2, 2] and (one * other[0]).is_cuda
    weight = torch.nn.Parameter(torch.ones(3))
    (weight.to("cuda") * one).sum().backward()
    assert weight.grad.device == CPU and cuda.transfers
    with pytest.raises(Mismatch):
        (weight.to("cuda").sum() * weight).sum().backward()


@pytest.mark.parametrize("sampled", [False, True])
def test_answers(cuda, gpus, sampled):
    sampling = Sampling(generator=torch.Generator().manual_seed(0), samples=2, temperature=0.7) if sampled else None
    generate(on_gpu(gpus), PROMPTS, max_new_tokens=6, sampling=sampling)
    generate(on_gpu(gpus), PROMPTS, max_new_tokens=6, sampling=sampling, repetition=Repetition(1.2, 2))


def test_two_gpus_answer_and_weigh_as_one_does(cuda):
    """To the bit; and a CPU, which has another attention, to the token."""
    alone, shared = on_gpu(1), on_gpu(2)
    of_layers = [next(layer.parameters()).device for layer in shared.base.model.model.layers]
    assert of_layers == [torch.device("cuda", 0), torch.device("cuda", 1)]
    continuations = [[[5, 6, 2], [5, 7]]] * 3
    given, weights = [], []
    for adapted in (alone, shared):
        given.append([one.ids for (one,) in generate(adapted, PROMPTS, max_new_tokens=6)])
        weights.append(weigh(adapted, PROMPTS, continuations))
    assert given[0] == given[1] and weights[0] == weights[1]
    assert cuda.transfers
    cpu = Adapted(Base(tiny_model(), Numbers(), frozenset([END])), tiny_compute())
    assert [one.ids for (one,) in generate(cpu, PROMPTS, max_new_tokens=6)] == given[0]


def test_weighing(cuda, gpus):
    weigh(on_gpu(gpus), PROMPTS, [[[5, 6, 2], [5, 7]]] * 3)


def test_a_token_waits_for_the_gpu_a_few_times(cuda):
    """However many layers there are: what waits is the loop, not the model."""
    adapted = on_gpu()
    counts = []
    for tokens in (4, 12):
        cuda.syncs.clear()
        generate(adapted, PROMPTS, max_new_tokens=tokens)
        counts.append(sum(cuda.syncs.values()))
    assert (counts[1] - counts[0]) / 8 <= 4


def test_a_population_of_mixtures(cuda, gpus, tmp_path):
    adapted = on_gpu(gpus)
    model = adapted.base.model
    factors = tiny_factors(tiny_model(), tmp_path)
    draw = torch.Generator().manual_seed(0)
    z = {name: 1 + 0.3 * torch.randn(2, len(factors[name][1]), generator=draw) for name in factors.modules}
    experts = SvfAdapter(z, Mixture(("a", "b"), "all", ((0.5, 0.5),), "paper"))
    with population(model, factors, experts, torch.rand(3, 2, 2, generator=draw)) as attachment:
        generate(Adapted(adapted.base, adapted.compute, attachment), PROMPTS, max_new_tokens=4)
    own = Mixture(("a", "b"), "prompt", ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5)), "paper", ("x", "y", "z"))
    with experts.mixed_by(own).attached(model, factors) as attachment:
        rows = attachment.rows(["z", "x", "y"])
        generate(Adapted(adapted.base, adapted.compute, attachment), PROMPTS, max_new_tokens=4, rows=rows)


def test_rows_of_the_server(cuda, gpus, tmp_path):
    adapted = on_gpu(gpus)
    model, compute = adapted.base.model, adapted.compute
    factors = Resident(tiny_factors(tiny_model(), tmp_path), model)
    draw = torch.Generator().manual_seed(0)
    low_rank = lora.initial(model, lora.Settings(rank=2, alpha=4, dropout=0.0, modules=("q_proj", "v_proj")), draw)
    edits = reft.initial(model, reft.Settings(**EDITS, formula="loreft"), draw)
    z = {name: torch.full((len(factors[name][1]),), 1.1) for name in factors.modules}
    ways = [Way("base"), Way("svf", z=z), Way("lora", lora=low_rank), Way("reft", edits=edits)]
    told: list = []
    turn = ({"role": "user", "content": ""},)
    asked = [Options(max_new_tokens=4, stop=(), temperature=temperature) for temperature in (0.0, 0.8)]
    jobs = [Job(turn, way, options, told.append, prompt=PROMPTS[0]) for way in ways for options in asked]
    Engine(adapted.base, factors, compute, rows=5).finish(jobs)
    assert sum(isinstance(heard, Answered) for heard in told) == 8, told


# ---- the stages ------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(project, tmp_path, monkeypatch, cuda, gpus):
    """Runs a stage of the small project on the GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: None)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    compute = tiny_compute(256, 2000).model_copy(update={"device": "cuda", "gpus": gpus})
    project = replace(project, params={**project.params, **METHODS, "rows": {**project.params["rows"], **ROWS}})

    def run(module, **given):
        return project.run(module, tmp_path / module.__name__, compute=compute, **given)

    return run


def of(project, *tasks):
    return {"train": project.files("train", *tasks), "validation": project.files("validation", *tasks)}


def on_sums(project):
    return {"task": "sums", "train": project.data("sums", "train"), "validation": project.data("sums", "validation")}


def test_factors(stage):
    stage(factorize)


def test_experts(project, stage, tmp_path):
    for _ in range(2):  # the second goes on at the checkpoint of the first
        stage(train_svf, row="svf", method="svf", name="sums-0", **on_sums(project))
    stage(answer, task="sums", adapter=tmp_path / "stages.train_svf/expert", examples=project.data("sums", "test"))


@pytest.mark.parametrize("method", ["svf", "lora"])
def test_policy_gradients(project, stage, method):
    for _ in range(2):
        stage(train_reinforce, row=method, method=method, name="x", **on_sums(project))


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "tinylora"])
def test_next_tokens(project, stage, method, tmp_path):
    for _ in range(2):
        stage(train_supervised, row=method, method=method, name="x", **on_sums(project))
    stage(
        answer, task="sums", adapter=tmp_path / "stages.train_supervised/expert", examples=project.data("sums", "test")
    )


def test_edits(project, stage):
    for _ in range(2):
        stage(train_skills, row="reft", method="reft", **of(project, "sums", "kinds"))


def test_routed_edits(project, stage, tmp_path):
    stage(train_csreft, row="csreft", method="csreft", **of(project, "sums", "kinds"))
    trained = tmp_path / "stages.train_csreft/adapter"
    stage(answer, task="sums", adapter=trained, examples=project.data("sums", "test"))
    given = {"row": "csreft", "method": "csreft", "start": trained}
    stage(grow_skills, **given, **of(project, "sums", "kinds", "uses"))


def test_a_classification_expert(project, stage):
    stage(fit_classifier, **of(project, "sums", "kinds"))


def test_a_head_over_edits(project, stage, tmp_path):
    about = {"method": "reft", "subset": "s", "label": "label", "metric": "accuracy"}
    stage(train_head, row="reft", token="last", **about, **of(project, "sums", "kinds"))
    stage(classify, adapter=tmp_path / "stages.train_head/adapter", examples=project.files("test", "sums"), **about)


def test_a_merged_base(project, stage):
    unadapted = project.root / "base/base.safetensors"
    stage(merge, name="tuned", method="lora", unadapted=unadapted, **of(project, "sums", "kinds"))
