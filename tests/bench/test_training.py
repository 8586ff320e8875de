"""An optimizer step of SVF against the frozen model and against writing every W', and what a step of RL needs."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from pipeline.core.artifacts import read_examples
from pipeline.methods.svf import SvfLearner, Targets
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import decoder
from pipeline.training import reinforce
from pipeline.training.layout import Group
from pipeline.training.packing import answer_hidden, packed_batches
from pipeline.training.rollouts import Rollout, written
from tests.bench.conftest import COMPUTE, EXAMPLES

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS = Targets(modules=MODULES, parametrisation="direct", init_mean=0.1, init_std=0.01)


@pytest.fixture(scope="module")
def learner(factors):
    return SvfLearner(factors, TARGETS, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 49152, (8, 128), generator=torch.Generator().manual_seed(0))


def svf_step(base, learner, optimizer, ids) -> None:
    with learner.learning(base.model):
        decoder(base.model)(input_ids=ids, use_cache=False).last_hidden_state.float().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_svf_step_over_frozen(paired, base, learner, ids):
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-6, foreach=False)
    embed = base.model.get_input_embeddings()

    def frozen() -> None:
        states = embed(ids).detach().requires_grad_()
        decoder(base.model)(inputs_embeds=states, use_cache=False).last_hidden_state.float().sum().backward()

    paired(
        "svf_step_over_frozen",
        lambda: svf_step(base, learner, optimizer, ids),
        frozen,
        inverted=True,
        unit="seconds, an SVF step on MLP and attention over forward and backward of the frozen model, same attention",
        n="8 × 128 tokens",
    )


@pytest.fixture(scope="module")
def materialise_and_project(plain, factors):
    """(ids) → CPU seconds of a step on the model as transformers runs it: every W' a dense tensor of the graph;
    autograd forms ∂L/∂W' and projects it."""
    z = {name: torch.ones(len(factors[name][1]), requires_grad=True) for name in factors.modules}
    optimizer = torch.optim.AdamW(z.values(), lr=1e-6, foreach=False)

    def step(ids: torch.Tensor) -> float:
        start = time.process_time()
        written = {}
        for name, vector in z.items():
            u, sigma, vt = factors[name]
            written[f"{name}.weight"] = ((u * (sigma * vector)) @ vt).to(plain.dtype)
        hidden = torch.func.functional_call(
            plain,
            written,
            kwargs={"input_ids": ids, "use_cache": False, "output_hidden_states": True, "logits_to_keep": 1},
        ).hidden_states[-1]
        hidden.float().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start

    return step


def test_svf_step(paired, base, learner, ids, materialise_and_project):
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-6, foreach=False)

    def ours() -> float:
        start = time.process_time()
        svf_step(base, learner, optimizer, ids)
        return time.process_time() - start

    paired(
        "svf_step",
        ours,
        lambda: materialise_and_project(ids),
        unit="CPU seconds, materialise every W' and project the dense gradient over ours; sequences with nothing alike",
        n="8 × 128 tokens",
    )


def test_svf_step_on_samples(paired, base, learner, ids, materialise_and_project):
    """As a step of training has them: the samples of one prompt, which is computed once."""
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-6, foreach=False)
    rows = torch.cat([ids[:1, :64].expand(8, -1), ids[:, 64:]], 1)
    group = Group(rows[0, :64].tolist(), rows[:, 64:].tolist())
    ((_, packed),) = packed_batches([group], Attachment(), batch_tokens=2048, device=base.device)

    def ours() -> float:
        start = time.process_time()
        with learner.learning(base.model) as attachment:
            answer_hidden(decoder(base.model), packed, attachment).float().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start

    paired(
        "svf_step_on_samples",
        ours,
        lambda: materialise_and_project(rows),
        unit="CPU seconds, materialise every W' and project the dense gradient over ours; the samples of one prompt",
        n="8 samples × (64 + 64) tokens",
    )


class Apart(SvfLearner):
    """One that lets sequences share nothing."""

    @contextmanager
    def learning(self, model):
        with super().learning(model) as attachment:
            attachment.alike = lambda rows: None
            yield attachment


def every_second(draw) -> reinforce.Questions:
    """Questions of which every second answer is right."""

    def rewards(asked, answers) -> list[float]:
        return [1.0 - 2.0 * (place % 2) for place in range(len(answers))]

    return reinforce.Questions([], [], draw, rewards)


def test_rl_learning(paired, base, factors):
    """The half of a step that learns, on samples of the base model: what they have in common, against each alone."""
    examples = read_examples(EXAMPLES / "functions" / "train.jsonl")[:10]
    kept = reinforce.rollout(
        base,
        SvfLearner(factors, TARGETS, torch.Generator().manual_seed(0)),
        examples,
        every_second(written(base, compute=COMPUTE, max_new_tokens=40, samples=6, temperature=1.0)),
        generator=torch.Generator().manual_seed(0),
    )
    alone = [
        Rollout(item.prompt, [answer], weight[None] * 6)
        for item in kept
        for answer, weight in zip(item.answers, item.weights("rloo"), strict=True)
    ]
    gradients = {}

    def learn(kind: type[SvfLearner], rollouts, advantage) -> None:
        learner = learners.setdefault(kind, kind(factors, TARGETS, torch.Generator().manual_seed(0)))
        with torch.no_grad():  # away from the base model: there the KL has no gradient
            learner.flat.normal_(0, 0.03, generator=torch.Generator().manual_seed(1))
        reinforce.loss_and_gradient(
            base,
            learner,
            rollouts,
            settings=SimpleNamespace(kl_estimator="full", learnt_at=1.0, advantage=advantage),
            kl_coefficient=0.05,
            compute=COMPUTE,
        )
        gradients[kind], learner.flat.grad = learner.flat.grad, None

    learners: dict[type[SvfLearner], SvfLearner] = {}
    paired(
        "rl_learning",
        lambda: learn(SvfLearner, kept, "rloo"),
        lambda: learn(Apart, alone, "none"),
        unit="seconds, each sample with its prompt as a sequence of its own over ours; loss, KL and gradient of z",
        n="functions, 10 prompts × 6 samples of up to 40 tokens of the base model",
    )
    tree, apart = gradients[SvfLearner], gradients[Apart]
    assert (tree - apart).norm() < 0.1 * apart.norm()  # bfloat16, summed otherwise


STEP = """
import json, sys, time
import torch
from pipeline.methods.svf import SvfLearner
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.sampling import Sampling
from pipeline.model.forward.adapters import Factors
from pipeline.model.forward.base import Adapted, load_base, prepare_process
from pipeline.training import reinforce
from pipeline.training.rollouts import Rollout
from tests.bench.conftest import COMPUTE, FACTORS, MODEL
from tests.bench.test_training import TARGETS
from types import SimpleNamespace
rollouts, prompt, answer = map(int, sys.argv[1:])
compute = COMPUTE.model_copy(update={"batch_tokens": 1024, "cache_tokens": 8192})
prepare_process(compute)
base = load_base(MODEL, compute)
learner = SvfLearner(Factors(FACTORS), TARGETS, torch.Generator().manual_seed(0))
generator = torch.Generator().manual_seed(0)
start = time.perf_counter()
endless = type(base)(base.model, base.tokenizer, frozenset([-1]))
prompts = [torch.randint(0, 49152, (prompt,), generator=generator).tolist() for _ in range(rollouts // 8)]
sampling = Sampling(generator=generator, samples=8, temperature=1.0)
with learner.sampling(base.model) as attachment:
    groups = generate(Adapted(endless, compute, attachment), prompts, max_new_tokens=answer, sampling=sampling)
items = [Rollout(p, group, torch.tensor([1.0, -1.0] * 4)) for p, group in zip(prompts, groups)]
reinforce.loss_and_gradient(
    base,
    learner,
    items,
    settings=SimpleNamespace(kl_estimator="full", learnt_at=1.0, advantage="rloo"),
    kl_coefficient=0.1,
    compute=compute,
)
seconds = time.perf_counter() - start
# not ru_maxrss, which begins at what the process that started this one had
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "gib": int(peak.split()[1]) / 2**20}))
"""


def rl_step(rollouts: int, prompt: int, answer: int) -> dict[str, float]:
    """Seconds and peak GiB of one step, in a process of its own."""
    command = [sys.executable, "-c", STEP, str(rollouts), str(prompt), str(answer)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def test_rl_peak_gib(note, base):
    curve = []
    for rollouts in (32, 64, 128):
        step = rl_step(rollouts, 48, 64)
        tokens = rollouts * 64 + rollouts // 8 * 48
        curve.append({"rollouts": rollouts, "tokens": tokens, **step, "ms per token": 1000 * step["seconds"] / tokens})
    note(
        "rl_peak_gib",
        [curve[-1]["gib"]],
        "GiB, peak of the process in one RL step, weights and libraries included",
        "128 rollouts of 48 + 64 tokens, 8 of a prompt; batch_tokens 1024, cache_tokens 8192",
        curve=curve,
    )
