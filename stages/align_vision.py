"""Give a language model eyes: put a trained tower before it, train a LoRA to read its columns, and merge it.

LLaVA (arXiv 2304.08485) trains the language model in its second stage, too. What comes of it is labelled as what it is:
a small reader, trained here on generated signs, in front of a language model. It loads in plain transformers once
``pipeline.model.forward.tower`` has been imported.
"""

from pipeline.core.artifacts import atomic_folder, write_jsonl
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods.base import Unadapted, provenance
from pipeline.model.forward.adapters import chosen_state, load_adapter, save_adapter
from pipeline.model.forward.base import Compute, prepare_process
from pipeline.model.forward.eyes import seeing
from pipeline.training import supervised
from pipeline.training.loop import Data, Training
from pipeline.training.sighted import Eyed, asked, together, words_of
from pipeline.training.skills import initial

METHOD = "lora"


def run(
    *,
    name: str,
    seed: int,
    model: In,
    unadapted: In,
    tower: In,
    compute: Compute,
    settings: Eyed,
    sighted: Out,
    adapter: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, object]:
    """Make the base model ``name`` of params.yaml; ``unadapted`` says what its language model is called."""
    prepare_process(compute, seed)
    with step("put the tower before the language model"):
        base = seeing(*together(model, tower, settings, compute.dtype))
    with step(f"draw {settings.examples} signs"):
        words = words_of(base.tokenizer)
        held_out = asked(words, settings.training.validation_examples, f"alignment, held out {seed}")
        data = Data(asked(words, settings.examples, f"alignment {seed}"), held_out)
    with step("train a LoRA"):
        trained = initial(base, METHOD, settings.adapter, seed=seed)
        rows = supervised.train(
            base, trained, data, compute=compute, training=Training(settings.training, seed, checkpoints)
        )
    with step("merge it into the weights"):
        # float32 whatever it was trained in: the sum is not rounded before it is decomposed
        whole = seeing(*together(model, tower, settings, "float32"))
        with trained.attached(whole.model, None), atomic_folder(sighted) as folder:
            whole.save(folder)
    of = load_adapter(unadapted)[1]["base"]
    label = f"{settings.name}: {of} behind a small reader of signs that was trained here"
    save_adapter(adapter, Unadapted(), provenance(label, whole.whole.num_parameters()))
    write_jsonl(curve, rows)
    return {"base": label, **chosen_state(rows)}


if __name__ == "__main__":
    main()
