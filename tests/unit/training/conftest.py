"""A project small enough to run stages in: a random base model, its factors, and the examples of three tasks."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from pipeline.core.artifacts import write_jsonl
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.stage import In, Out
from pipeline.methods.base import Unadapted, provenance
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.adapters import save_adapter
from stages.initialise import Initialised, chat_tokenizer, random_model
from tests.tiny import MODULES, OPTIMISATION, REINFORCE, tiny_compute, tiny_factors

LOW_RANK = {"rank": 2, "alpha": 4, "dropout": 0.0, "modules": ["q_proj", "v_proj"]}
EDITS = {"rank": 2, "layers": "all", "positions": "f1+l2", "tied": True, "initial": "identity"}
ROUTER = {"input": "last_token", "layer": 0, "gate": "hard", "penalty": "sparsity", "penalty_weight": 0.01}
ROUTER |= {"supervision": 0.1, "learning_rate_ratio": 4.0}
TRAINING = {**OPTIMISATION, "steps": 3, "batch": 2, "learning_rate": 0.01, "validate_every": 3}
PARAMS = {
    "svf": {"modules": list(MODULES), "parametrisation": "direct", "init_mean": 0.1, "init_std": 0.01},
    "reinforce": {**REINFORCE, "steps": 2, "batch": 2, "samples": 2},
    "lora": {"adapter": LOW_RANK, "training": TRAINING},
    "reft": {"adapter": {"formula": "loreft", **EDITS}, "training": TRAINING},
    "csreft": {"adapter": {**EDITS, "orthonormal": "across", "router": ROUTER}, "training": TRAINING},
    "classifier": {"like": "reinforce", "examples_per_task": 3, "temperature": 2.0, "kl_coefficients": [0.0]},
    "dispatch": {"names": {"math": "math", "reasoning": "reasoning", "others": "others"}, "system": "", "question": ""},
    "bases": {"tuned": {"source": "merge", "adapter": {"like": "lora.adapter"}, "training": {"like": "lora.training"}}},
    "rows": {
        **{name: {} for name in ("svf", "lora", "reft", "csreft")},
        "few": {"shots": 3},
        "dropped": {"adapter": {"like": "lora.adapter", "dropout": 0.1}},
    },
}
PARAMS["dispatch"]["question"] = "{prompt} Is this math or reasoning?"
DOMAINS = {"sums": "math", "kinds": "reasoning", "uses": "reasoning"}


@dataclass(frozen=True)
class Project:
    """root: where everything of it lies. params: its params.yaml."""

    root: Path
    params: dict[str, Any]

    def data(self, task: str, split: str) -> Path:
        return self.root / f"data/{task}/{split}.jsonl"

    def files(self, split: str, *tasks: str) -> list[Path]:
        return [self.data(task, split) for task in tasks]

    def run(self, stage: ModuleType, folder: Path, **given: Any) -> dict[str, Any]:
        """Run a stage: what is not given is read from the settings, or is a file of ``folder``."""
        known = {
            "model": self.root / "base/model",
            "factors": self.root / "factors.safetensors",
            "compute": tiny_compute(256, 2000),
            "decoding": Decoding(max_new_tokens=3),
            "checkpoints": Checkpoints(folder / "checkpoints"),
            "seed": 0,
        }
        words = {key: str(value) for key, value in given.items()}
        arguments: dict[str, Any] = {}
        for key, parameter in inspect.signature(stage.run).parameters.items():
            kind = parameter.annotation
            if key in given or key in known:
                arguments[key] = given.get(key, known.get(key))
            elif isinstance(kind, type) and issubclass(kind, Section):
                arguments[key] = kind.read(self.params, words)
            elif kind == Out:
                arguments[key] = folder / key
            else:
                assert In not in (kind, *get_args(kind)), f"{key} is not given"
                arguments[key] = key
        return stage.run(**arguments)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root, texts = tmp_path_factory.mktemp("project"), []
    for task, domain in DOMAINS.items():
        for split, count in {"train": 8, "validation": 5, "test": 4, "few_shot": 5}.items():
            rows = []
            for a in range(count):
                meta = {"task": task, "domain": domain, "answer": str(a), "subset": "s", "label": "ny"[a % 2]}
                turns = [{"role": "user", "content": f"{task} {a} + 1 ="}]
                rows.append({"id": f"{task}-{split}-{a}", "messages": turns, "target": f"{a + 1}", "meta": meta})
            write_jsonl(root / f"data/{task}/{split}.jsonl", rows)
            texts += [f"{row['messages'][0]['content']} {row['target']}" for row in rows]
    tokenizer = chat_tokenizer(texts, 300)
    shape = {"hidden_size": 16, "layers": 2, "heads": 2, "key_value_heads": 1, "intermediate_size": 24}
    settings = Initialised(source="random", name="tiny", seed=0, **shape, vocabulary=300, max_positions=128)
    model = random_model(settings, tokenizer)
    model.save_pretrained(root / "base/model")
    tokenizer.save_pretrained(root / "base/model")
    save_adapter(root / "base/base.safetensors", Unadapted(), provenance("Toy", model.num_parameters()))
    tiny_factors(model, root)
    return Project(root, PARAMS)
