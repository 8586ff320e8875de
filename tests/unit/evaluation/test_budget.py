"""Tables, prompts, tokens and memory of the profiles, by what they plan."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml

from pipeline.core.errors import UserError
from pipeline.data.tables import MIRROR, mirror
from pipeline.evaluation import budget, memory
from pipeline.flow import profiles
from pipeline.flow.plan import expand
from pipeline.model.forward.spread import blocks
from tests.tiny import tiny_model


@cache
def text(name: str) -> str:
    return profiles.text(name)


def profile(name: str) -> dict:
    return yaml.safe_load(text(name))


def cells(params: dict) -> dict[str, Counter]:
    """Of each table, how many cells each task has."""
    found: dict[str, Counter] = {}
    for cell in expand(params)["cells"].values():
        for table in cell["tables"]:
            found.setdefault(table, Counter())[cell["task"]] += 1
    return found


# ---- tables ----------------------------------------------------------------------------------------------------------

TRAINED, UNSEEN = ("gsm8k", "mbpp_pro", "arc_easy"), ("math", "humaneval", "arc_challenge")


def each(tasks: tuple[str, ...], rows: int) -> Counter:
    return Counter(dict.fromkeys(tasks, rows))


# Lines × tasks of the paper's tables, a base model's line once.
TRANSFORMER2 = {
    "paper-llama3-8b": {
        "table1": each(TRAINED, 3),  # base, LoRA, SVF
        "table2": each(UNSEEN, 5),  # base, LoRA, three strategies
        "table4": each(("gsm8k", "math"), 8),  # trials 0 to 7
        "table5": each(UNSEEN, 4),  # base, ordered, shuffled, few-shot across models
        "table7": each(TRAINED, 4) + each(UNSEEN, 6),  # base, (IA)³, DoRA; SVF; three strategies
        "table8": each(("arc_challenge",), 1 + 3 * 4),  # base; three ways on 3, 5, 10 and 20 prompts
        "table9": each(TRAINED, 3),  # base, ordered, shuffled
        "table10": each(("arc_challenge",), 4),  # base and three budgets
        "searchers": each(("math",), 3),  # equal α, of Section 4.3
    },
    "paper-mistral-7b": {
        "table1": each(TRAINED, 3),
        "table2": each(UNSEEN, 5),
        "table5": each(UNSEEN, 4),
        "table9": each(TRAINED, 3),
    },
    "paper-llama3-70b": {"table1": each(TRAINED, 3), "table2": each(UNSEEN, 3)},  # the prompt strategy alone
}


@pytest.mark.parametrize("name", TRANSFORMER2)
def test_the_tables_of_transformer2_have_the_papers_cells(name: str) -> None:
    params = profile(name)
    assert cells(params) == TRANSFORMER2[name]
    shown = {table.name: table.cells for table in budget.tables(params, expand(params))}
    assert {key: count for key, count in shown.items() if count} == {
        table: sum(tasks.values()) for table, tasks in TRANSFORMER2[name].items()
    }
    assert shown["table6"] == shown["table3"] == 0  # settings, and seconds of cells that stand in Table 2


def test_llama_has_the_papers_ten_tables_in_order() -> None:
    params = profile("paper-llama3-8b")
    names = [table.name for table in budget.tables(params, expand(params))]
    assert names == [*(f"table{number}" for number in range(1, 11)), "searchers"]


def test_tables_5_and_9_are_between_llama_and_mistral() -> None:
    for name, moved, onto in (("paper-llama3-8b", "base", "mistral"), ("paper-mistral-7b", "llama", "base")):
        params = profile(name)
        plan = expand(params)
        assert "Llama-3-8B" in params["bases"][moved]["name"] and "Mistral-7B" in params["bases"][onto]["name"]
        assert {item["base"] for item in plan["transfer"].values()} == {onto}
        prefix = "" if moved == "base" else f"{moved}-"
        assert {item["expert"] for item in plan["transfer"].values()} == {f"experts/{prefix}svf-{t}-0" for t in TRAINED}
        for table in ("table5", "table9"):
            assert {cell["base"] for cell in plan["cells"].values() if table in cell["tables"]} == {onto}
        (cross,) = {tuple(item["experts"][:6]) for item in plan["adapt"].values() if item["row"] == "cross"}
        assert sum("transferred/" in path for path in cross) == 3  # the experts of both models


@pytest.mark.parametrize("name", ["commonsense", "arithmetic", "glue", "instruct"])
def test_no_task_of_the_reft_profiles_is_in_two_roles(name: str) -> None:
    """What is trained on is one union, or UltraFeedback; nothing is called unseen and trained on within a union."""
    roles = Counter(task["role"] for task in profile(f"paper-reft-{name}")["tasks"].values())
    assert roles["trained"] == 1 and roles["unseen"] == 0


def test_profiles_of_the_reft_papers_have_their_tables() -> None:
    seeds = 5
    assert cells(profile("paper-reft-commonsense")) == {"commonsense8": Counter(commonsense_170k=1 + 4 * seeds)}
    assert cells(profile("paper-reft-arithmetic")) == {"arithmetic4": Counter(math_10k=1 + 3 * seeds)}
    assert cells(profile("paper-reft-instruct")) == {"alpaca_eval": Counter(alpaca_eval=1 + 3 * seeds)}
    assert cells(profile("paper-csreft-llama2-7b")) == {"alpaca_eval": Counter(alpaca_eval=3)}
    heads = Counter(item["subset"] for item in expand(profile("paper-reft-glue"))["train_head"].values())
    assert heads == Counter(dict.fromkeys("mnli sst2 mrpc cola qnli qqp rte".split(), 2 * seeds))


def test_csreft_has_four_skills_and_an_endpoint_judges_it() -> None:
    params = profile("paper-csreft-llama2-7b")
    plan = expand(params)
    (item,) = plan["train_csreft"].values()
    assert set(item["data"]) == {"alpaca", "evol_instruct", "flan", "chat"}
    assert params["judges"]["gpt4"]["kind"] == "endpoint"
    assert {judge["cell"] for judge in plan["judge"].values() if judge["judge"] == "gpt4"} == set(plan["cells"])


# ---- prompts, tokens and memory --------------------------------------------------------------------------------------


def test_work_is_counted_by_the_plan() -> None:
    params = profile("laptop")
    plan = expand(params)
    work = budget.work(params, plan)
    assert work["generate"] == (
        200 * len(plan["cells"]),
        200 * sum(longest(params, cell) for cell in plan["cells"].values()),
    )
    # sixteen steps of twelve prompts with six samples, and three validations of two hundred; one λ
    expert = 16 * 12 * 6 + 3 * 200
    moved = 5 * 8 * 4 + 2 * 50
    assert work["train_svf"][0] == 3 * expert + 3 * moved
    assert work["train_reinforce"] == (3 * expert, 3 * expert * 16)
    assert work["dispatch"] == (2 * 6 * 200, 0)
    searches = Counter(item["strategy"] for item in plan["adapt"].values())
    assert searches == {"select": 3, "few_shot": 6, "uniform": 1, "scan": 1}


def test_choices_are_weighed_once_and_not_sampled() -> None:
    params = profile("evidence-smollm")
    work = budget.work(params, expand(params))
    assert work["train_svf"] == work["train_reinforce"] == (3 * (100 * 32 + 6 * 400), 0)


def longest(params: dict, cell: dict) -> int:
    return params["tasks"][cell["task"]]["decoding"]["max_new_tokens"]


def test_a_sweep_and_every_coefficient_are_trainings_of_their_own() -> None:
    params = profile("paper-llama3-8b")
    plan = expand(params)
    once = 100 * 256 + 11 * 512
    variants = {item["row"]: budget.rollouts(params, item) for item in plan["train_reinforce"].values()}
    assert variants == {
        **dict.fromkeys(("svf-mlp", "svf-attention", "svf-both"), 4 * once),
        "lora-policy_gradient": 6 * 4 * once,
    }
    tests = {"gsm8k": 1319 - 10, "math": 5000 - 10, "arc_challenge": 1172 - 20}
    assert {task: budget.tested_on(params, task) for task in tests} == tests


def test_a_search_counts_its_candidates() -> None:
    params = profile("paper-llama3-8b")
    items = {item["row"]: item for item in expand(params)["adapt"].values()}
    candidates = 4 * 32 * 100  # configurations, population, generations
    expected = {"few_shot": candidates * 10, "few_shot_20": candidates * 20, "few_shot_light": candidates * 3 // 10}
    expected |= {"best_lora": 3 * 10, "uniform": 10}
    assert {row: budget.judged(params, items[row]) for row in expected} == expected
    assert budget.judged(params, items["few_shot_light"]) / budget.judged(params, items["few_shot"]) == 0.03  # 3 %


@pytest.mark.parametrize(
    ("name", "task", "subsets"), [("commonsense", "commonsense", 8), ("arithmetic", "arithmetic", 4)]
)
def test_the_profiles_of_the_reft_papers_benchmarks_are_counted(name: str, task: str, subsets: int) -> None:
    params = profile(name)
    prompts = 3 * 200 * subsets  # base, LoRA and LoReFT
    assert budget.work(params, expand(params)) == {"generate": (prompts, prompts * longest(params, {"task": task}))}


def test_a_benchmark_of_unknown_size_is_not_counted() -> None:
    params = profile("paper-csreft-llama2-7b")
    params["tasks"]["flan"]["data"]["test"] = "all"
    assert budget.tested_on(params, "flan") is None
    params["tables"]["more"] = {"tasks": ["flan"], "rows": ["base"]}
    assert budget.work(params, expand(params))["generate"] == (None, None)


def test_half_the_layers_are_half_the_factors() -> None:
    params = profile("paper-llama3-70b")
    whole = {**params, "svf": {key: value for key, value in params["svf"].items() if key != "layers"}}
    sizes = [memory.Needs(p, expand(p), "base").parts()["factors of SVF"] for p in (params, whole)]
    assert 2 * sizes[0] == sizes[1]


def test_a_model_larger_than_a_gpu_is_told_where_it_lies_and_whether_it_fits() -> None:
    params = profile("paper-llama3-70b")
    needs = memory.Needs(params, expand(params), "base")
    there = dict(needs.on_gpus())
    assert [what.partition(":")[0] for what in there] == ["GPU 0", "GPU 1", "GPU 2", "GPU 3"]
    assert "embeddings and head, layers 0 to " in next(iter(there)) and list(there)[-1].endswith("to 79")
    assert sum(there.values()) == sum(needs.parts().values())
    assert max(there.values()) < 1.15 * min(there.values())
    assert not list(memory.misfits(needs))
    params["compute"] = {**params["compute"], "gpus": 2}
    wrong = list(memory.misfits(memory.Needs(params, expand(params), "base")))
    assert len(wrong) == 2 and "expected at most 72 GiB on a GPU of 80 (compute.gpu_memory" in wrong[0]


@pytest.mark.parametrize(("sizes", "rest", "devices", "places"), [
    ([1, 1, 1, 1], 0, 2, [0, 0, 1, 1]),
    ([1, 1, 1, 1], 2, 2, [0, 1, 1, 1]),  # the first has the embeddings, too
    ([1, 1], 9, 2, [0, 1]),  # each has a layer, however large the embeddings are
    ([5, 1, 1], 0, 3, [0, 1, 2]),
    ([1, 1, 1, 1, 1], 0, 1, [0, 0, 0, 0, 0]),
])  # fmt: skip
def test_layers_are_spread_in_blocks_of_equal_size(
    sizes: list[int], rest: int, devices: int, places: list[int]
) -> None:
    assert blocks(sizes, rest, devices) == places


def test_more_gpus_than_layers_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"compute\.gpus to be at most 2, the model's layers, got 3"):
        blocks([1, 1], 0, 3)


# ---- what a person is told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_has_tables_counts_budgets_and_pinned_sources(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR, raising=False)
    plan = expand(profile(name))
    lines, wrong = budget.report(profile(name), plan)
    only_of_a_mirror = [line for line in wrong if line.startswith("expected a mirror that has the table")]
    assert wrong == only_of_a_mirror and bool(wrong) == ("okvqa" in plan["prepare"])
    tables = {table for cell in plan["cells"].values() for table in cell["tables"]}
    for table in tables:
        count = sum(table in cell["tables"] for cell in plan["cells"].values())
        assert any(line.split()[:3] == [table, str(count), "cells:"] for line in lines)
    assert any("base model" in line for line in lines) and any("key-value cache" in line for line in lines)
    assert any(line.endswith(("generate", "classify")) for line in lines)


@pytest.mark.skipif(mirror() is None, reason=f"{MIRROR} names no mirror of the benchmarks")
def test_a_mirror_has_all_that_the_benchmarks_need() -> None:
    params = profile("benchmarks")
    assert budget.sources(params, expand(params)) == []


def test_a_table_the_mirror_has_not_got_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR, str(tmp_path))
    params = profile("benchmarks")
    found = budget.sources(params, expand(params))
    assert found and all("found none; correct SELFADAPT_MIRROR" in line for line in found)


def test_a_branch_is_one_sentence() -> None:
    params = profile("paper-llama3-8b")
    params["bases"]["base"]["revision"] = "main"
    found = budget.sources(params, expand(params))
    assert any("'bases.base.revision' to be a commit; pin it" in line for line in found)


def test_a_local_model_is_counted_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR, raising=False)
    tiny_model(6).save_pretrained(tmp_path / "model")
    params = profile("benchmarks")
    params["bases"]["base"] = {"source": "path", "name": "mine", "path": str(tmp_path / "model")}
    lines, wrong = budget.report(params, expand(params))
    assert wrong == []
    assert "mine: parameters" in lines


def test_layers_beyond_the_base_model_are_found() -> None:
    params = profile("laptop")
    params["reft"]["adapter"]["layers"] = [4, 99]
    _, wrong = budget.report(params, expand(params))
    assert wrong == [
        "params.yaml: 'reft.adapter' does not fit SmolLM2-135M-Instruct: "
        "expected layers from 0 to 29, got 99; correct it"
    ]
