"""Train a small tower that reads signs, and a projector, in front of a language model that is not run for it."""

import torch

from pipeline.core.artifacts import write_jsonl, write_tensors
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.model.forward.base import Compute, prepare_process
from pipeline.training.loop import Training
from pipeline.training.sighted import Towered, drawn, untrained, words_of
from pipeline.training.tower import strings, train

SHOWN = 8  # signs shown beside the run


def run(
    *,
    name: str,
    seed: int,
    model: In,
    compute: Compute,
    settings: Towered,
    tower: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """Train the tower of the base model ``name`` of params.yaml, whose language model is in ``model``."""
    prepare_process(compute, seed)
    reading = settings.training
    with step("load the language model's embeddings"):
        reader, tokenizer = untrained(model, settings, autocast=compute.dtype == "bfloat16")
        reader.tower.to(memory_format=torch.channels_last)
    with step(f"draw {reading.pictures} signs"):
        words = words_of(tokenizer)
        signs = drawn(words, reading.pictures, f"tower {seed}")
        held_out = drawn(words, reading.validation_examples, f"tower, held out {seed}")
    with step("train the tower"):
        rows = train(reader, signs, held_out, Training(reading, seed, checkpoints))
    tensors = {f"{part}.{key}": tensor for part in ("tower", "projector") for key, tensor in _state(reader, part)}
    chosen = next(row for row in rows if row["chosen"])
    write_tensors(tower, tensors, {"base": name, "steps": chosen["step"], "size": settings.size})
    write_jsonl(curve, rows)
    read = strings(reader, held_out)
    show_table(
        "signs", [{"sign": sign, "read": said} for sign, said in zip(held_out.texts[:SHOWN], read, strict=False)]
    )
    return {
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "chosen_step": chosen["step"],
        "whole_strings_read": chosen["validation"],
    }


def _state(reader: torch.nn.Module, part: str) -> list[tuple[str, torch.Tensor]]:
    return list(getattr(reader, part).state_dict().items())


if __name__ == "__main__":
    main()
