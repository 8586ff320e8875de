"""Adapt to an unseen task on a few of its prompts: search for the mixture of experts that answers them best.

The few-shot search of the tables and its variants, with other shots, budgets and searchers, are rows of params.yaml.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from pipeline.adaptation.candidates import Exam
from pipeline.adaptation.contract import Outcome, Search
from pipeline.adaptation.search import Pool
from pipeline.core.artifacts import read_examples, write_jsonl
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.data.tasks import task_module
from pipeline.methods.svf import Mixing
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.adapters import Factors, save_adapter
from pipeline.model.forward.base import Adapted, Compute, decoder_layers, load_base, prepare_process


def run(
    *,
    row: str,
    strategy: str,
    task: str,
    seed: int,
    model: In,
    factors: In,
    experts: list[In],
    shots: In,
    compute: Compute,
    mixing: Mixing,
    settings: Search,
    decoding: Decoding,
    adapted: Out,
    trace: Out,
    checkpoints: Checkpoints,
) -> Mapping[str, Any]:
    """Search for ``row`` of params.yaml by ``strategy``, a module of ``pipeline.adaptation``."""
    prepare_process(compute, seed)
    search = importlib.import_module(f"pipeline.adaptation.{strategy}").search
    score = task_module(task).score
    with step("load the base model and the experts"):
        base, pool = load_base(model, compute), Pool.read(experts, mixing.mix)
        exam = Exam(read_examples(shots)[: settings.shots], score, decoding)
    with step(f"search by {strategy} on {len(exam.examples)} prompts"):
        outcome: Outcome = search(
            pool.judge(Adapted(base, compute), Factors(factors), exam, elites=settings.elites),
            experts=len(pool.names),
            layers=len(decoder_layers(base.model)),
            settings=settings,
            seed=seed,
            checkpoints=checkpoints,
        )
    adapter, parameters = pool.adapter(outcome.alpha)
    chosen = {
        "configuration": outcome.configuration,
        "experts": pool.names,
        "alpha": outcome.alpha.double().tolist(),
    }
    facts = {"method": strategy, "task": task, "seed": seed, "base": model.parent.name, "parameters": parameters}
    save_adapter(adapted, adapter, {**facts, **chosen})
    rows = [{**line, "chosen": line["configuration"] == outcome.configuration} for line in outcome.trace]
    normalised = outcome.configuration.endswith("normalised")
    write_jsonl(trace, [*rows, {"final": True, "normalised": normalised, "accuracy": outcome.accuracy, **chosen}])
    show_table("search", rows)
    return {"configuration": outcome.configuration, "shots_accuracy": outcome.accuracy, "prompts": outcome.prompts}


if __name__ == "__main__":
    main()
