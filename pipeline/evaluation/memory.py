"""What a profile's models need of memory, and where they lie: counted on a model without storage."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.core.config import settings
from pipeline.evaluation.parameters import Plan, meta_model, of_base, shape_of
from pipeline.methods.svf import Targets, in_layers
from pipeline.model.forward.base import Compute, decoder_layers, layer_of, linear_modules
from pipeline.model.forward.spread import blocks, bytes_of

GIB = 1 << 30
ACTIVATIONS = 0.1  # of a GPU's memory is left for them


class Needs:
    """Bytes that a base model needs: of each decoder layer, and of all else.

    weights: in the run's dtype. factors: those of SVF, which training holds in that dtype on a GPU, and in float32 on a
    CPU. cache: keys and values of ``compute.cache_tokens`` tokens, in the same.
    """

    def __init__(self, params: Mapping[str, Any], plan: Plan, base: str) -> None:
        self.compute = Compute.parse(settings(params, "compute"), "compute")
        config = shape_of(of_base(params, base))
        model = meta_model(config)
        size = 2 if self.compute.dtype == "bfloat16" else 4
        held = size if self.compute.device == "cuda" else 4
        depth = config.num_hidden_layers
        self.weights = model.num_parameters() * size
        self.factors = dict.fromkeys(range(depth), 0)
        if base in plan["factorize"]:
            targets = Targets.parse(settings(params, "svf"), "svf")
            for name in in_layers(linear_modules(model, targets.modules), targets.layers):
                shape = model.get_submodule(name).weight.shape
                self.factors[layer_of(name)] += held * min(shape) * (sum(shape) + 1)
        groups = getattr(config, "num_key_value_heads", config.num_attention_heads)
        of_token = 2 * groups * config.hidden_size // config.num_attention_heads
        self.cache = self.compute.cache_tokens * of_token * held  # of a layer
        self.layers: list[int] = []
        if self.compute.gpus > 1:
            whole = model.dtype.itemsize
            self.layers = [bytes_of(layer) * size // whole for layer in decoder_layers(model)]

    def parts(self) -> dict[str, int]:
        """The largest things held at once, activations aside."""
        factors = sum(self.factors.values())
        found = {"weights": self.weights, **({"factors of SVF": factors} if factors else {})}
        return {**found, "key-value cache": self.cache * len(self.factors)}

    def on_gpus(self) -> Iterator[tuple[str, int]]:
        """What lies on each GPU, and its bytes."""
        if self.compute.gpus == 1:
            yield "GPU 0: all layers", sum(self.parts().values())
            return
        rest = self.weights - sum(self.layers)
        places = blocks(self.layers, rest, self.compute.gpus)
        for gpu in range(self.compute.gpus):
            own = [layer for layer, place in enumerate(places) if place == gpu]
            bytes_there = sum(self.layers[layer] + self.factors[layer] + self.cache for layer in own)
            ends = "embeddings and head, " if gpu == 0 else ""
            yield f"GPU {gpu}: {ends}layers {own[0]} to {own[-1]}", bytes_there + (rest if gpu == 0 else 0)


def listed(needs: Needs) -> list[str]:
    """Lines for a person: the parts, and where they lie if on GPUs."""
    held = needs.parts().items()
    lines = ["memory, GiB, activations aside", *(f"  {size / GIB:>15.2f}  {what}" for what, size in held)]
    if needs.compute.device == "cuda":
        lines += [f"  {size / GIB:>15.2f}  {what}" for what, size in needs.on_gpus()]
    return lines


def misfits(needs: Needs) -> Iterator[str]:
    """What does not fit into the GPUs that the settings tell of, a sentence each."""
    memory = needs.compute.gpu_memory
    if needs.compute.device != "cuda" or memory is None:
        return
    for what, size in needs.on_gpus():
        if size > (1 - ACTIVATIONS) * memory * GIB:
            yield (
                f"params.yaml: expected at most {(1 - ACTIVATIONS) * memory:.0f} GiB on a GPU of {memory:g} "
                f"(compute.gpu_memory; the rest is for activations), got {size / GIB:.0f} ({what}); raise "
                "compute.gpus, or lower compute.cache_tokens or svf.layers"
            )
