"""Rules against repetition in an answer: a penalty on every token that was there before, and no n-gram twice.

The penalty is that of CTRL (arXiv 1909.05858, section 4.1), as transformers has it: the logit of each token that
stands in the prompt or in the answer so far is divided by it where it is positive, and multiplied by it where it is
negative. A token that would complete an n-gram which stands there already is impossible.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import LongTensor, Tensor


@dataclass(frozen=True)
class Repetition:
    """penalty: 1 has no effect. ngram: n, the length of what may not stand twice; 0 has no effect."""

    penalty: float
    ngram: int

    def __bool__(self) -> bool:
        return self.penalty != 1 or self.ngram > 0


class History:
    """The tokens of the samples of a batch, as far as the rules look at them.

    prompts: one for each sample. vocabulary: how many tokens there are.
    """

    def __init__(
        self, rules: Repetition, prompts: Sequence[Sequence[int]], vocabulary: int, device: torch.device
    ) -> None:
        self._rules = rules
        self._seen = torch.zeros(len(prompts), vocabulary, dtype=torch.bool, device=device)
        self._last: list[tuple[int, ...]] = [()] * len(prompts)  # of each sample the n − 1 newest tokens
        self._followed: list[defaultdict[tuple[int, ...], set[int]]] = [defaultdict(set) for _ in prompts]
        for number, prompt in enumerate(prompts):
            for id_ in prompt:
                self._note(number, id_)
            words = [id_ for id_ in prompt if id_ < vocabulary]  # a picture's tokens are beyond it, and never written
            self._seen[number, torch.tensor(words, dtype=torch.long, device=device)] = True

    def add(self, samples: LongTensor, ids: LongTensor) -> None:
        """One more token of each of these samples."""
        self._seen[samples, ids] = True
        for number, id_ in zip(samples.tolist(), ids.tolist(), strict=True):
            self._note(number, id_)

    def _note(self, number: int, id_: int) -> None:
        """Remember what followed the newest n − 1 tokens of a sample."""
        n = self._rules.ngram
        if not n:
            return
        last = self._last[number]
        if len(last) == n - 1:
            self._followed[number][last].add(id_)
        self._last[number] = (*last, id_)[-(n - 1) :] if n > 1 else ()

    def ruled(self, samples: LongTensor, logits: Tensor) -> Tensor:
        """The logits of these samples' next tokens under the rules. logits: (samples, vocabulary)."""
        logits = logits.float()
        if self._rules.penalty != 1:
            penalised = torch.where(logits > 0, logits / self._rules.penalty, logits * self._rules.penalty)
            logits = torch.where(self._seen[samples], penalised, logits)
        for row, number in enumerate(samples.tolist()):
            if banned := self._followed[number].get(self._last[number]):
                logits[row, list(banned)] = -torch.inf
        return logits
