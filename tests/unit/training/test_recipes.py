"""Where a row's settings stand: with its method, in the row itself, or like those of another place."""

import pytest

from pipeline.core.errors import UserError
from pipeline.training.recipes import parts
from pipeline.training.reinforce import Reinforced
from pipeline.training.supervised import Supervised
from stages.train_supervised import Settings
from tests.tiny import MODULES, OPTIMISATION, REINFORCE

LOW_RANK = {"rank": 2, "alpha": 4, "dropout": 0.1, "modules": ["q_proj"]}
SWEEP = {"learning_rates": [0.1, 0.2], "clips": [1.0]}
PARAMS = {
    "svf": {"modules": list(MODULES), "parametrisation": "direct", "init_mean": 0.1, "init_std": 0.01},
    "reinforce": REINFORCE,
    "lora": {"adapter": LOW_RANK, "training": OPTIMISATION, "sweep": SWEEP},
    "rows": {
        "svf": {},
        "lora": {},
        "own": {
            "adapter": {**LOW_RANK, "rank": 3},
            "training": {**OPTIMISATION, "steps": 9},
            "sweep": {"learning_rates": [0.3], "clips": [2.0]},
        },
        "alike": {
            "adapter": {"like": "lora.adapter", "dropout": 0.0},
            "training": {"like": "rows.own.training", "batch": 2},
        },
        "rewarded": {"training": {"like": "reinforce", "learning_rate": 0.5}},
        "few": {"shots": 3},
    },
}


def arguments(row: str, method: str = "lora") -> dict[str, str]:
    return {"row": row, "method": method}


def test_a_row_that_says_nothing_has_the_settings_of_its_method():
    recipe = Supervised.read(PARAMS, arguments("lora"))
    assert recipe.adapter == LOW_RANK and OPTIMISATION.items() <= recipe.training.model_dump().items()
    assert recipe.sweep is not None and recipe.sweep.learning_rates == (0.1, 0.2)
    assert Supervised.places(PARAMS, arguments("lora")) == ("lora.adapter", "lora.training", "lora.sweep")


def test_by_policy_gradient_there_is_no_sweep_and_svf_stands_at_the_top():
    assert Reinforced.places(PARAMS, arguments("svf", "svf")) == ("svf", "reinforce")
    assert Reinforced.places(PARAMS, arguments("lora")) == ("lora.adapter", "reinforce")
    recipe = Reinforced.read(PARAMS, arguments("svf", "svf"))
    assert recipe.training.samples == REINFORCE["samples"] and recipe.sweep is None
    assert parts(PARAMS, "svf", "svf", "next_token")["training"] == "svf.training"


def test_a_row_may_give_every_part_itself():
    recipe = Supervised.read(PARAMS, arguments("own"))
    assert recipe.adapter["rank"] == 3 and recipe.training.steps == 9
    assert recipe.sweep is not None and recipe.sweep.clips == (2.0,)
    own = tuple(f"rows.own.{part}" for part in ("adapter", "training", "sweep"))
    assert Supervised.places(PARAMS, arguments("own")) == own
    assert Reinforced.read(PARAMS, arguments("rewarded")).training.learning_rate == 0.5


def test_a_part_like_another_is_that_one_but_for_what_it_says():
    recipe = Supervised.read(PARAMS, arguments("alike"))
    assert recipe.adapter == {**LOW_RANK, "dropout": 0.0}
    assert (recipe.training.steps, recipe.training.batch) == (9, 2)
    places = ("rows.alike.adapter", "lora.adapter", "rows.alike.training", "rows.own.training", "lora.sweep")
    assert Supervised.places(PARAMS, arguments("alike")) == places


def test_only_a_stage_that_trains_on_a_few_prompts_takes_a_number_of_them():
    assert Settings.read(PARAMS, arguments("few")).shots == 3 and Settings.read(PARAMS, arguments("lora")).shots is None
    assert "rows.few.shots" in Settings.places(PARAMS, arguments("few"))
    with pytest.raises(UserError, match="'rows.few.shots' is not a known setting"):
        Supervised.read(PARAMS, arguments("few"))


def changed(place: str, **values) -> dict:
    section, key = place.split(".")
    return {**PARAMS, section: {**PARAMS[section], key: {**PARAMS[section][key], **values}}}


def test_an_error_names_the_place_where_the_setting_stands():
    with pytest.raises(UserError, match=r"'lora\.adapter\.rnak' is not a known setting; did you mean 'rank'"):
        Supervised.read(changed("lora.adapter", rnak=4), arguments("lora"))
    with pytest.raises(UserError, match=r"'lora\.training\.steps' does not fit"):
        Supervised.read(changed("lora.training", steps="many"), arguments("lora"))
    with pytest.raises(UserError, match=r"'reinforce\.advantage' does not fit"):
        Reinforced.read({**PARAMS, "reinforce": {**REINFORCE, "advantage": "ppo"}}, arguments("svf", "svf"))
    with pytest.raises(UserError, match="correct the name or add pipeline/methods/drao.py"):
        Supervised.read({**PARAMS, "drao": PARAMS["lora"]}, arguments("lora", "drao"))
    with pytest.raises(UserError, match="'rows' has no 'lorra'; did you mean 'lora'"):
        Supervised.read(PARAMS, arguments("lorra"))
