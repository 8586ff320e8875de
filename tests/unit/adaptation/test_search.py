"""A row's search: where its settings stand, how its candidates are judged, and the adapter that comes of it."""

from pathlib import Path

import pytest
import torch

from pipeline.adaptation.candidates import Exam
from pipeline.adaptation.contract import FewShot, Search
from pipeline.adaptation.search import Pool
from pipeline.core.errors import UserError
from pipeline.core.types import PLAIN, Example, Score
from pipeline.methods import lora
from pipeline.methods.svf import single
from pipeline.model.decoding.batch import Decoding
from pipeline.model.decoding.choose import choose, continuations
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.adapters import save_adapter
from pipeline.model.forward.base import Adapted
from stages import dispatch
from tests.tiny import tiny_base, tiny_compute, tiny_factors

WRITTEN = Decoding(max_new_tokens=5)
SETTINGS = {
    "shots": 10,
    "configurations": ["shared-free"],
    "population": 6,
    "elites": 3,
    "generations": 4,
    "deviation": 0.5,
    "smoothing": 0.3,
}
PARAMS = {
    "few_shot": SETTINGS,
    "rows": {
        "plain": {"method": "svf"},
        "three": {"method": "svf", "search": {"like": "few_shot", "shots": 3}},
        "light": {"method": "svf", "search": {"like": "rows.three.search", "generations": 1}},
    },
}


@pytest.mark.parametrize(
    ("row", "places", "shots", "generations"),
    [
        ("plain", ("few_shot",), 10, 4),
        ("none", ("few_shot",), 10, 4),
        ("three", ("rows.three.search", "few_shot"), 3, 4),
        ("light", ("rows.light.search", "rows.three.search", "few_shot"), 3, 1),
    ],
)
def test_a_row_without_a_search_of_its_own_has_the_few_shot_settings(row, places, shots, generations):
    settings = Search.read(PARAMS, {"row": row})
    assert Search.places(PARAMS, {"row": row}) == places
    assert (settings.shots, settings.generations, settings.population) == (shots, generations, 6)
    assert isinstance(settings, FewShot)


def test_a_mistake_in_a_rows_search_is_named_where_it_stands():
    params = {**PARAMS, "rows": {"three": {"search": {"like": "few_shot", "shot": 3}}}}
    with pytest.raises(UserError, match=r"'rows\.three\.search\.shot' is not a known setting; did you mean 'shots'\?"):
        Search.read(params, {"row": "three"})


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture(scope="module")
def factors(base, tmp_path_factory):
    return tiny_factors(base.model, tmp_path_factory.mktemp("svd"))


@pytest.fixture
def svf_files(factors, tmp_path) -> list[Path]:
    """Three experts that answer differently."""
    paths = [tmp_path / f"svf-{name}-0.safetensors" for name in "abc"]
    for seed, path in enumerate(paths):
        draw = torch.Generator().manual_seed(seed)
        z = {name: 1 + torch.randn(len(factors[name][1]), generator=draw) for name in factors.modules}
        save_adapter(path, single(z, path.stem), {"parameters": 5 + seed})
    return paths


def exam() -> Exam:
    """Right is an answer whose last token has an even number."""

    def score(examples, answers):
        even = [bool(answer) and int(answer.split()[-1]) % 2 == 0 for answer in answers]
        return [Score(example.id, float(yes), yes, None) for example, yes in zip(examples, even, strict=True)]

    texts = ["What is 2?", "And 17?", "Or 5 and 3?", "No"]
    return Exam([Example(text, ({"role": "user", "content": text},), "four") for text in texts], score, WRITTEN)


def test_experts_judged_together_are_judged_as_one_by_one(base, factors, svf_files):
    pool = Pool.read(svf_files, "paper")
    apart = Pool(pool.names, pool.adapters, pool.parameters, stacked=None)  # as experts that cannot be mixed
    one_hot = torch.eye(3)[:, None].expand(-1, 2, -1)
    bare = Adapted(base, tiny_compute())
    accuracy, likelihood = pool.judge(bare, factors, exam(), elites=3)(one_hot)
    accuracy_apart, likelihood_apart = apart.judge(bare, factors, exam(), elites=3)(one_hot)
    assert torch.equal(accuracy, accuracy_apart)
    torch.testing.assert_close(likelihood, likelihood_apart, atol=1e-4, rtol=1e-4)
    assert len(set(likelihood.tolist())) == 3


@pytest.mark.parametrize("per", ["sum", "token", "character"])
def test_candidates_are_judged_by_the_choices_they_take(base, factors, svf_files, per):
    """As many are right as if each expert chose alone, and the likelihood is that of the right choices."""

    def score(examples, answers):
        rights = [base.text(continuations(base, one)[1]) for one in examples]
        right = [answer == text for answer, text in zip(answers, rights, strict=True)]
        return [Score(one.id, float(yes), yes, None) for one, yes in zip(examples, right, strict=True)]

    meta = {"choices": {"a": "two", "b": "17", "c": "no"}, "answer": "b"}
    examples = [Example(text, ({"role": PLAIN, "content": text},), "", meta) for text in ("What?", "And?", "Or 5?")]
    chosen_by = Exam(examples, score, Decoding(choose_by=per))
    pool, bare = Pool.read(svf_files, "paper"), Adapted(base, tiny_compute())
    one_hot = torch.eye(3)[:, None].expand(-1, 2, -1)
    accuracy, likelihood = pool.judge(bare, factors, chosen_by, elites=1)(one_hot)
    for number, adapter in enumerate(pool.adapters):
        with adapter.attached(base.model, factors) as attachment:
            alone = Adapted(base, tiny_compute(), attachment)
            taken = [base.text(answer.ids) for answer in choose(alone, examples, per)]
            right = [continuations(base, one)[1:2] for one in examples]
            weights = [value for (value,) in weigh(alone, [base.prompt_ids(e.messages) for e in examples], right)]
        assert float(accuracy[number]) == pytest.approx(sum(item.correct for item in score(examples, taken)) / 3)
        tokens = sum(len(ids) for (ids,) in right)
        assert float(likelihood[number]) == pytest.approx(sum(weights) / tokens, abs=1e-4)


def test_what_a_search_comes_to_is_a_mixture_of_all_experts(factors, svf_files):
    pool = Pool.read(svf_files, "delta")
    assert pool.names == ("svf-a-0", "svf-b-0", "svf-c-0")
    adapter, parameters = pool.adapter(torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]))
    assert (adapter.mixture.axis, adapter.mixture.mix, adapter.mixture.experts) == ("layer", "delta", pool.names)
    assert parameters == 6
    shared, parameters = pool.adapter(torch.tensor([[0.1, 0.2, 0.7]]))
    assert shared.mixture.axis == "all" and parameters == 3
    assert shared.mixture.coefficients == (tuple(torch.tensor([0.1, 0.2, 0.7]).double().tolist()),)


def test_experts_that_cannot_be_mixed_are_chosen_from(base, tmp_path):
    paths = [tmp_path / f"lora-{name}-0.safetensors" for name in "ab"]
    settings = lora.Settings(rank=2, alpha=4, dropout=0.0, modules=("q_proj",))
    for seed, path in enumerate(paths):
        adapter = lora.initial(base.model, settings, torch.Generator().manual_seed(seed))
        save_adapter(path, adapter, {"parameters": 7 + seed})
    pool = Pool.read(paths, "paper")
    chosen, parameters = pool.adapter(torch.tensor([[0.0, 1.0]]))
    assert chosen is pool.adapters[1] and parameters == 8


def test_experts_without_a_domain_each_are_one_sentence(tmp_path):
    files = {name: tmp_path / name for name in ("adapter", "model", "factors", "adapted", "decisions")}
    with pytest.raises(UserError, match="expected a domain for each of 2 experts, got 'math'"):
        dispatch.run(
            **files,
            experts=[tmp_path / "a", tmp_path / "b"],
            domains="math",
            examples=[],
            compute=tiny_compute(),
            dispatch=dispatch.dispatching.Dispatch(names={}, system="", question=""),
            mixing=dispatch.Mixing(mix="paper"),
        )
