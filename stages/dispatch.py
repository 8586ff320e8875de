"""The first pass by category: the base model, or the classification expert, decides which expert each prompt gets."""

from pipeline.adaptation import dispatch as dispatching
from pipeline.core.artifacts import atomic_folder, read_examples, write_jsonl
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.methods.svf import Mixing, stack_experts
from pipeline.model.forward.adapters import Factors, load_adapter, save_adapter
from pipeline.model.forward.base import Compute, load_base, prepare_process


def run(
    *,
    adapter: In,
    model: In,
    factors: In,
    experts: list[In],
    domains: str,
    examples: list[In],
    compute: Compute,
    dispatch: dispatching.Dispatch,
    mixing: Mixing,
    adapted: Out,
    decisions: Out,
) -> dict[str, float]:
    """Decide for the prompts of every task of ``examples``; returns the share of right domains of each.

    adapter: what is attached while the model is asked. domains: of the experts, in their order, in words.
    """
    prepare_process(compute)
    names, kinds = [path.stem for path in experts], domains.split()
    if len(kinds) != len(names):
        raise UserError(f"expected a domain for each of {len(names)} experts, got '{domains}'; plan again")
    with step("load the base model and the experts"):
        base = load_base(model, compute)
        classifier, _ = load_adapter(adapter)
        stacked = stack_experts([load_adapter(path)[0] for path in experts], names, mixing.mix)
        tasks = {path.parent.name: read_examples(path) for path in examples}
    rows = []
    with step("name the category of every prompt"), classifier.attached(base.model, Factors(factors)) as attachment:
        for task, prompts in tasks.items():
            weights = dispatching.categories(base, prompts, attachment, settings=dispatch, compute=compute)
            rows += [
                {
                    "id": example.id,
                    "task": task,
                    "domain": example.meta["domain"],
                    "predicted": dispatching.predicted(values),
                    "log_likelihoods": values,
                }
                for example, values in zip(prompts, weights, strict=True)
            ]
    with step("write the mixtures"), atomic_folder(adapted) as folder:
        for task in tasks:
            own = [row for row in rows if row["task"] == task]
            mixture = dispatching.mixture(
                [row["id"] for row in own],
                [row["predicted"] for row in own],
                domains=kinds,
                experts=names,
                mix=mixing.mix,
            )
            provenance = {"method": "svf", "task": task, "base": model.parent.name, "parameters": 0}
            save_adapter(folder / f"{task}.safetensors", stacked.mixed_by(mixture), provenance)
    write_jsonl(decisions, rows)
    accuracy = {
        task: sum(row["predicted"] == row["domain"] for row in rows if row["task"] == task) / len(prompts)
        for task, prompts in tasks.items()
    }
    show_table("dispatch", [{"task": task, "accuracy": value} for task, value in accuracy.items()])
    return accuracy


if __name__ == "__main__":
    main()
