"""The decode loop and what is built on it, against the usual ways."""

import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.adaptation.candidates import Exam, judge
from pipeline.adaptation.dispatch import Dispatch, categories, question
from pipeline.core.artifacts import read_examples
from pipeline.core.config import read_params
from pipeline.core.types import Mixture
from pipeline.methods.svf import SvfAdapter, materialised_weights, population, row_scaled
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.batch import Decoding
from pipeline.model.decoding.sampling import Sampling
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Adapted, Base, decoder, load_base
from pipeline.model.forward.logprobs import token_logprobs
from pipeline.tasks import groceries
from tests.bench.conftest import COMPUTE, EXAMPLES, MODEL


@pytest.fixture(scope="module")
def mixable(base, factors):
    """Three made-up experts, of the size of trained ones."""
    generator = torch.Generator().manual_seed(0)
    z = {name: 1 + 0.03 * torch.randn(3, len(factors[name][1]), generator=generator) for name in factors.modules}
    return SvfAdapter(z, Mixture(("a", "b", "c"), "all", ((1 / 3, 1 / 3, 1 / 3),), "delta"))


def padded(prompts):
    """Ids and mask, left-padded, as ``generate`` of transformers wants them."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def theirs(model, prompts, tokens: int, *, sampled: bool) -> int:
    """Generate by transformers; how many tokens, the end included, were generated."""
    ids, mask = padded(prompts)
    written = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=tokens,
        do_sample=sampled,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        pad_token_id=0,
    )[:, ids.shape[1] :]
    end = model.generation_config.eos_token_id
    ended = (written == end).int().cumsum(1)
    return int((ended - (written == end).int() == 0).sum())


def test_rollout(paired, base, plain, prompts):
    asked, seed = prompts(128), iter(range(1000))

    def ours() -> float:
        start = time.perf_counter()
        sampling = Sampling(generator=torch.Generator().manual_seed(next(seed)))
        answers = generate(Adapted(base, COMPUTE), asked, max_new_tokens=64, sampling=sampling)
        return (time.perf_counter() - start) / sum(len(answer.ids) for (answer,) in answers)

    def alternative() -> float:
        torch.manual_seed(next(seed))
        start = time.perf_counter()
        tokens = theirs(plain, asked, 64, sampled=True)
        return (time.perf_counter() - start) / tokens

    paired(
        "rollout",
        ours,
        alternative,
        unit="tokens per second, ours over transformers' generate, sampled, ragged ends",
        n="128 prompts × ≤ 64 tokens",
    )


def test_rollout_samples(paired, base, prompts):
    asked, seeds = prompts(10), [iter(range(1000)), iter(range(1000))]

    def draw(prompts, samples: int, seed: int) -> None:
        sampling = Sampling(generator=torch.Generator().manual_seed(seed), samples=samples)
        generate(Adapted(base, COMPUTE), prompts, max_new_tokens=40, sampling=sampling)

    paired(
        "rollout_samples",
        lambda: draw(asked, 6, next(seeds[0])),
        lambda: draw([prompt for prompt in asked for _ in range(6)], 1, next(seeds[1])),  # the same numbers are drawn
        unit="seconds, each sample a row of its own over samples that are one row for as long as they are alike",
        n="10 prompts × 6 samples × ≤ 40 tokens, untrained model",
    )


def test_mixed_batch_over_one(paired, base, factors, mixable, prompts):
    asked = prompts(64)
    endless = Base(base.model, base.tokenizer, frozenset([-1]))  # every row as long as the others
    generator = torch.Generator().manual_seed(1)
    mixtures = torch.rand(8, 1, 3, generator=generator).expand(-1, base.model.config.num_hidden_layers, -1)

    def mixed() -> float:
        with population(base.model, factors, mixable, mixtures) as attachment:
            start = time.perf_counter()
            adapted = Adapted(endless, COMPUTE, attachment)
            generate(adapted, asked, max_new_tokens=32, rows=[number % 8 for number in range(64)])
            return time.perf_counter() - start

    def materialised() -> float:
        with materialised_weights(base.model, factors, {name: mixable.z(name)[0] for name in mixable.experts}):
            start = time.perf_counter()
            generate(Adapted(endless, COMPUTE), asked, max_new_tokens=32)
            return time.perf_counter() - start

    paired(
        "mixed_batch_over_one",
        mixed,
        materialised,
        inverted=True,
        unit="seconds, a batch with 8 mixtures over the same batch with one materialised expert",
        n="64 prompts × 32 tokens",
    )


CANDIDATES, SHOTS = 16, 10


def candidates_and_shots(base):
    examples = read_examples(EXAMPLES / "groceries" / "few_shot.jsonl")[:SHOTS]
    drawn = 1 / 3 + 0.5 * torch.randn(CANDIDATES, 1, 3, generator=torch.Generator().manual_seed(2))
    return drawn.expand(-1, base.model.config.num_hidden_layers, -1), examples


def judged(base, attachment, examples, candidates: int) -> list[float]:
    exam = Exam(examples, groceries.score, Decoding(max_new_tokens=16))
    accuracy, _ = judge(Adapted(base, COMPUTE, attachment), exam, candidates=candidates, best=candidates)
    return accuracy.tolist()


def one_mixture(mixable, candidate):
    """Module → z of one candidate."""
    adapter = mixable.mixed_by(Mixture(("a", "b", "c"), "all", (tuple(candidate[0].tolist()),), "delta"))
    return {name: adapter.z(name)[0] for name in adapter.experts}


def test_cem_generation(paired, base, plain, factors, mixable):
    candidates, examples = candidates_and_shots(base)
    asked = [base.prompt_ids(example.messages) for example in examples]
    references = [base.answer_ids(example.target) for example in examples]

    def together() -> None:
        with population(base.model, factors, mixable, candidates) as attachment:
            judged(base, attachment, examples, CANDIDATES)

    def one_by_one() -> None:
        """Write every W' of a candidate, generate and weigh the references with transformers, then the next one."""
        for candidate in candidates:
            with materialised_weights(plain, factors, one_mixture(mixable, candidate)), torch.no_grad():
                ids, mask = padded(asked)
                answers = plain.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=16, do_sample=False, pad_token_id=0
                )[:, ids.shape[1] :]
                ids, mask = padded([[*prompt, *ref] for prompt, ref in zip(asked, references, strict=True)])
                plain(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)
            groceries.score(examples, [base.tokenizer.decode(row, skip_special_tokens=True) for row in answers])

    paired(
        "cem_generation",
        together,
        one_by_one,
        unit="seconds, one candidate after the other by transformers over all in one batch",
        n=f"{CANDIDATES} candidates × {SHOTS} prompts × ≤ 16 tokens",
    )


def test_a_population_has_the_scores_of_each_candidate_alone(factors, mixable):
    """Not a speed: float32, where the two ways of computing W'x round alike."""
    base = load_base(MODEL, COMPUTE.model_copy(update={"dtype": "float32"}))
    candidates, examples = candidates_and_shots(base)
    with population(base.model, factors, mixable, candidates) as attachment:
        together = judged(base, attachment, examples, CANDIDATES)
    for candidate, accuracy in zip(candidates, together, strict=True):
        with materialised_weights(base.model, factors, one_mixture(mixable, candidate)) as attachment:
            assert judged(base, attachment, examples, 1) == [accuracy]


def test_dispatch(paired, note, base):
    examples = (
        read_examples(EXAMPLES / "sums" / "test.jsonl")[:20] + read_examples(EXAMPLES / "uses" / "test.jsonl")[:44]
    )
    settings = Dispatch.parse(read_params(Path("params.yaml"))["dispatch"], "dispatch")
    questions = [base.prompt_ids(question(example, settings, "").messages) for example in examples]

    def ours() -> None:
        categories(base, examples, Attachment(), settings=settings, compute=COMPUTE)

    paired(
        "dispatch",
        ours,
        lambda: generate(Adapted(base, COMPUTE), questions, max_new_tokens=32) and None,
        unit="seconds, writing the category (our decode loop, ≤ 32 tokens) over weighing its names",
        n=f"{len(questions)} prompts",
    )
    asked = [base.prompt_ids(example.messages) for example in examples]
    endless = Base(base.model, base.tokenizer, frozenset([-1]))
    curve = []
    for tokens in (8, 32, 128, 256, 512):
        start = time.perf_counter()
        ours()
        first = time.perf_counter() - start
        start = time.perf_counter()
        generate(Adapted(endless, COMPUTE), asked, max_new_tokens=tokens)
        second = time.perf_counter() - start
        curve.append(
            {"answer tokens": tokens, "first pass, s": first, "second pass, s": second, "share": first / second}
        )
    note(
        "dispatch_share",
        [row["share"] for row in curve if row["answer tokens"] == 256],
        "first pass over second pass at 256 answer tokens",
        f"{len(questions)} prompts",
        curve=curve,
    )


@torch.no_grad()
def test_mixed_rows_have_the_logits_of_each_expert_alone(factors, mixable):
    """Not a speed: eight mixtures in one float32 batch against each alone, and against float64.

    A materialised expert rounds otherwise than a factored one, so that the two differ by what both differ from float64
    by: no more than twice to thrice what the frozen model itself does (1e-4 of logits up to 33).
    """
    base = load_base(MODEL, COMPUTE.model_copy(update={"dtype": "float32"}))
    generator = torch.Generator().manual_seed(3)
    z = {name: 1 + 0.03 * torch.randn(8, len(factors[name][1]), generator=generator) for name in factors.modules}
    ids = torch.randint(0, 49152, (8, 24), generator=generator)
    frozen = base.model(input_ids=ids).logits
    with row_scaled(base.model, factors, z) as attachment:
        attachment.begin(torch.arange(8), None)
        together = base.model(input_ids=ids).logits
    materialised = []
    for row in range(8):
        single = {name: vectors[row : row + 1] for name, vectors in z.items()}
        with row_scaled(base.model, factors, single) as attachment:
            attachment.begin(torch.arange(1), None)
            alone = base.model(input_ids=ids[row : row + 1]).logits[0]
        torch.testing.assert_close(together[row], alone, atol=1e-4, rtol=0)
        with materialised_weights(base.model, factors, {name: vectors[0] for name, vectors in single.items()}):
            materialised.append(base.model(input_ids=ids[row : row + 1]).logits[0])
    model = base.model.double()
    noise = (frozen - model(input_ids=ids).logits).abs().max()
    for row in range(8):
        written = {}
        for name, vectors in z.items():
            u, sigma, vt = (factor.double() for factor in factors[name])
            change = (u * (sigma * (vectors[row].double() - 1))) @ vt
            written[f"{name}.weight"] = model.get_submodule(name).weight + change
        exact = torch.func.functional_call(model, written, kwargs={"input_ids": ids[row : row + 1]}).logits[0]
        assert (together[row] - exact).abs().max() < 3 * noise
        assert (materialised[row] - exact).abs().max() < 3 * noise


@torch.no_grad()
def test_greedy_equals_transformers_in_float32():
    """Not a speed: 200 prompts, token for token."""
    base = load_base(MODEL, COMPUTE.model_copy(update={"dtype": "float32"}))
    plain = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    tasks = ("sums", "functions", "kinds", "groceries")
    asked = [
        base.prompt_ids(example.messages)
        for task in tasks
        for example in read_examples(EXAMPLES / task / "test.jsonl")[:50]
    ]
    ours = generate(Adapted(base, COMPUTE), asked, max_new_tokens=24)
    end = plain.generation_config.eos_token_id
    for start in range(0, 200, 50):
        ids, mask = padded(asked[start : start + 50])
        written = plain.generate(input_ids=ids, attention_mask=mask, max_new_tokens=24, do_sample=False, pad_token_id=0)
        for row, (answer,) in zip(written[:, ids.shape[1] :].tolist(), ours[start : start + 50], strict=True):
            reference = row[: row.index(end) + 1] if end in row else row
            assert list(answer.ids) == reference


@torch.no_grad()
def test_logprobs_of_the_loop_are_those_of_one_pass(base, prompts):
    """Not a speed: bfloat16, the real model."""
    asked = prompts(16)
    sampling = Sampling(generator=torch.Generator().manual_seed(0))
    answers = generate(Adapted(base, COMPUTE), asked, max_new_tokens=24, sampling=sampling)
    differences = []
    for prompt, (answer,) in zip(asked, answers, strict=True):
        hidden = decoder(base.model)(input_ids=torch.tensor([[*prompt, *answer.ids]])).last_hidden_state[0]
        again, _ = token_logprobs(hidden[len(prompt) - 1 : -1], base.lm_head, torch.tensor(answer.ids))
        differences.append((torch.tensor(answer.logprobs) - again).abs())
    assert torch.cat(differences).mean() < 0.05
