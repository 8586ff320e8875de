"""Table 6 of Transformer² (arXiv 2501.06252): the paper's settings beside ours; and every setting of the run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.reporting.tables.listing import Listing

OPTIMISER = "adamw"  # of both trainers, whatever the settings


def first_z(settings: Mapping[str, Any]) -> tuple[float, float]:
    """Mean and variance of the numbers that z is made of at the start; a direct z is exactly 1."""
    svf = settings["svf"]
    return (1.0, 0.0) if svf["parametrisation"] == "direct" else (svf["init_mean"], svf["init_std"] ** 2)


# From the paper's setting, by its place in data/published/transformer2.yaml, to ours.
OURS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "svf.z_init_mean": lambda settings: first_z(settings)[0],
    "svf.z_init_variance": lambda settings: first_z(settings)[1],
    "svf.global_batch": lambda settings: settings["reinforce"]["batch"] * settings["reinforce"]["samples"],
    "svf.learning_rate": lambda settings: settings["reinforce"]["learning_rate"],
    "svf.grad_clip_norm": lambda settings: settings["reinforce"]["clip"],
    "svf.kl_coefficients": lambda settings: settings["reinforce"]["kl_coefficients"],
    "svf.optimizer": lambda settings: OPTIMISER,
    "svf.schedule": lambda settings: settings["reinforce"]["schedule"],
    "lora.rank": lambda settings: settings["lora"]["adapter"]["rank"],
    "lora.alpha": lambda settings: settings["lora"]["adapter"]["alpha"],
    "lora.dropout": lambda settings: settings["lora"]["adapter"]["dropout"],
    "lora.global_batch": lambda settings: settings["lora"]["training"]["batch"],
    "lora.iterations": lambda settings: settings["lora"]["training"]["steps"],
    "lora.learning_rates": lambda settings: _tried(settings["lora"], "learning_rates", "learning_rate"),
    "lora.grad_clip_norms": lambda settings: _tried(settings["lora"], "clips", "clip"),
    "lora.modules": lambda settings: settings["lora"]["adapter"]["modules"],
}
SAME = {"q_proj, v_proj": "query and value projections"}  # the paper's words for it


def _tried(method: Mapping[str, Any], several: str, single: str) -> Any:
    """The values of a sweep, or the single value where nothing is swept."""
    return method["sweep"][several] if method.get("sweep") else method["training"][single]


def hyperparameter_table(settings: Mapping[str, Mapping[str, Any]], published: Mapping[str, Any]) -> Listing | None:
    """Table 6: the settings that the paper names, with ours beside. settings: by section.

    None where the paper's settings are not there, or ours lack one that is compared.
    """
    papers = published.get("transformer2", {}).get("table6_hyperparameters", {})
    named = [setting for name, section in papers.items() for setting in flattened(section, name)]
    rows = []
    for place, value in named:
        try:
            ours = spelled(OURS[place](settings))
        except KeyError:
            return None
        rows.append((place, SAME.get(ours, ours), value))
    if not rows:
        return None
    return Listing("table6", "Table 6. Hyper-parameters", ("setting", "this run", "paper"), tuple(rows), _said(rows))


def _said(rows: Sequence[tuple[str, str, str]]) -> str:
    """A sentence on which settings are as in the paper."""
    other = [place for place, ours, papers in rows if ours != papers]
    same = f"Of the {len(rows)} settings that the paper names, {len(rows) - len(other)} are the same in this run"
    return f"{same}; these are others: {', '.join(other)}." if other else f"{same}."


def settings_table(methods: Mapping[str, Mapping[str, Any]], variants: Sequence[tuple[str, str]]) -> Listing:
    """Every setting of this run. variants: settings of rows with a recipe of their own, by name."""
    rows = [setting for name, section in methods.items() for setting in flattened(section, name)] + list(variants)
    note = "Of a variant, what differs from 'svf' and 'reinforce', or from the baselines' own." if variants else ""
    return Listing("settings", "Every setting of this run", ("setting", "value"), tuple(rows), note)


def flattened(section: Mapping[str, Any], name: str) -> Iterable[tuple[str, str]]:
    """The settings of a section, each with its dotted place, as texts."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{name}.{key}")
        else:
            yield f"{name}.{key}", spelled(value)


def spelled(value: Any) -> str:
    """A setting as text; a list without its brackets."""
    return ", ".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)
