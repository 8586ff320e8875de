"""Where a step of RL spends its time, by function, and how far that is from what the machine can do.

The limits are measured in the same process: products of bfloat16 matrices of the model's widest shape, and reading
memory. What a half of the step needs is counted: 2 FLOP a weight and token for each pass forward or for the gradient
with respect to the hidden states, SVF's two factors in place of a matrix where it learns.
"""

import time
from collections import defaultdict
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from pipeline.core.artifacts import read_examples
from pipeline.methods.svf import SvfLearner
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import decoder
from pipeline.training import reinforce
from pipeline.training import rollouts as rollouts_by
from pipeline.training.layout import Group
from pipeline.training.packing import packed_batches
from tests.bench.conftest import COMPUTE, EXAMPLES, ROUNDS
from tests.bench.test_training import TARGETS, every_second

PROMPTS, SAMPLES, NEW_TOKENS = 10, 6, 40
SETTINGS = reinforce.Reinforce.model_construct(kl_estimator="full", temperature=1.0, samples=SAMPLES, advantage="rloo")
KINDS = (  # of functions, by what their names hold; the first that fits
    ("products with weights", ("mkldnn", "aten::mm", "aten::addmm")),
    ("attention's products", ("aten::bmm",)),
    ("softmax", ("softmax", "exp")),
    ("copies and casts", ("copy_", "cat", "index", "gather", "clone")),
)


def fastest(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def limits(hidden: int, wide: int) -> tuple[float, float]:
    """FLOP a second of a bfloat16 product, bytes a second read."""
    tokens, factor = torch.randn(2048, hidden).bfloat16(), torch.randn(wide, hidden).bfloat16()
    memory = torch.ones(2**27)
    product = 2 * 2048 * hidden * wide / fastest(lambda: torch.nn.functional.linear(tokens, factor))
    return product, memory.nbytes / fastest(memory.sum)


def by_kind(profiled: profile) -> dict[str, float]:
    """Seconds of CPU time that functions took themselves."""
    seconds: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, parts in KINDS if any(part in name for part in parts)), "elementwise and the rest")
        seconds[kind] += event.self_cpu_time_total / 1e6
    return seconds


def test_where_a_step_of_rl_spends_its_time(note, base, factors):
    config = base.model.config
    peak, bandwidth = limits(config.hidden_size, config.intermediate_size)
    examples = read_examples(EXAMPLES / "functions" / "train.jsonl")[:PROMPTS]
    learner = SvfLearner(factors, TARGETS, torch.Generator().manual_seed(0))
    draw = rollouts_by.written(base, compute=COMPUTE, max_new_tokens=NEW_TOKENS, samples=SAMPLES, temperature=1.0)
    questions = every_second(draw)

    def sampling() -> list[rollouts_by.Rollout]:
        return reinforce.rollout(base, learner, examples, questions, generator=torch.Generator().manual_seed(0))

    rollouts = sampling()

    def learning() -> None:
        reinforce.loss_and_gradient(base, learner, rollouts, settings=SETTINGS, kl_coefficient=0.05, compute=COMPUTE)

    learning()  # pays for what later calls find ready
    layers = sum(p.numel() for p in decoder(base.model).layers.parameters())
    factored = sum(u.numel() + vt.numel() for u, _, vt in (factors[name] for name in learner.modules))
    head = base.model.get_output_embeddings().weight.numel()
    groups = [Group(item.prompt, [answer.ids for answer in item.answers]) for item in rollouts]
    batches = list(packed_batches(groups, Attachment(), batch_tokens=COMPUTE.batch_tokens, device=base.device))
    passes = [rows for _, packed in batches for rows in (packed.beginnings, packed.rests, packed.others) if rows]
    computed = sum(rows.ids.numel() for rows in passes)
    predicting = sum(len(packed.states) for _, packed in batches)
    written = sum(len(answer.ids) for item in rollouts for answer in item.answers)
    shared = sum(len(group.prompt) for group in groups)  # more than what is computed: beginnings are shared
    flop = {
        # the prompts once; a token a step and row
        "sampling": 2 * layers * (shared + written) + 2 * head * written,
        # the base's pass for the KL, and ours forward and backward
        "learning": 2 * computed * (layers + 2 * factored) + 2 * head * predicting * 3,
    }
    rows = []
    shares = {}
    for half, call in (("sampling", sampling), ("learning", learning)):
        seconds = fastest(call)
        shares[half] = flop[half] / seconds / peak
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            call()
        kinds = by_kind(profiled)
        rows.append({"half": half, "function": "all", "seconds": seconds, "share": 1.0})
        for kind, spent in sorted(kinds.items(), key=lambda item: -item[1]):
            share = spent / sum(kinds.values())
            rows.append({"half": half, "function": kind, "seconds": share * seconds, "share": share})
    read = sum(p.numel() * p.element_size() for p in base.model.parameters())
    note(
        "rl_step_of_peak",
        [shares["learning"]],
        f"FLOP/s of the learning half over those of a bfloat16 product ({peak / 1e9:.0f} GFLOP/s); the sampling half: "
        f"{shares['sampling']:.2f}. Reading the weights once takes {1000 * read / bandwidth:.0f} ms "
        f"({bandwidth / 1e9:.1f} GB/s)",
        f"{PROMPTS} prompts × {SAMPLES} samples × ≤ {NEW_TOKENS} tokens of functions, full KL",
        curve=rows,
    )
    assert 0 < shares["learning"] < 1.05
