"""The language-model head: from a decoder's final states to logits, as the model's family does it.

Most families multiply by a matrix. Some add a bias (Phi-2), scale the result (Granite, Cohere) or bound it smoothly
(Gemma 2): logits = cap · tanh(scale · (h Wᵀ + b) / cap). What is more than that is found by the trial of a model
(``pipeline.model.decoding.trial``) and refused.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LmHead:
    """module: the matrix, (vocab, hidden), and its bias, if it has one. cap: None where logits are not bounded."""

    module: nn.Linear
    scale: float = 1.0
    cap: float | None = None

    @property
    def weight(self) -> Tensor:
        return self.module.weight

    @property
    def trained(self) -> bool:
        """Whether it is trained itself, as a classification head is and a frozen model's own is not."""
        return any(parameter.requires_grad for parameter in self.module.parameters())

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits, (…, vocab), of states (…, hidden). The module's weights may be reordered for a job."""
        return self._shaped(self.module(hidden))

    def logits(self, hidden: Tensor) -> Tensor:
        """The same in float32, by the weights as they are."""
        raw = hidden @ self.weight.T
        return self._shaped((raw if self.module.bias is None else raw + self.module.bias).float())

    def slope(self, logits: Tensor) -> Tensor | float:
        """∂ logits / ∂ (h Wᵀ + b) where the logits are these: a number, or (…, vocab)."""
        return self.scale if self.cap is None else (1 - (logits / self.cap) ** 2) * self.scale

    def of_states(self, of_logits: Tensor, slope: Tensor | float) -> Tensor:
        """∂L/∂h, (…, hidden), of ∂L/∂logits, (…, vocab), which is overwritten. slope: where the logits are."""
        if isinstance(slope, Tensor) or slope != 1:
            of_logits.mul_(slope)
        return of_logits.to(self.weight.dtype) @ self.weight

    def _shaped(self, raw: Tensor) -> Tensor:
        if self.scale != 1:
            raw = raw * self.scale
        return raw if self.cap is None else torch.tanh(raw / self.cap) * self.cap


def lm_head_of(model: nn.Module) -> LmHead:
    """The head of a model of transformers, or of another one that has ``get_output_embeddings``."""
    module = model.get_output_embeddings()
    if not hasattr(model, "config"):
        return LmHead(module)
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    return LmHead(module, scale, getattr(config, "final_logit_softcapping", None))
