"""How well candidate mixtures answer a few prompts: what a search for α is driven by.

All candidates answer all prompts in one batch, each row of it under its own mixture.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.core.adapters import Attachment
from pipeline.core.generation import Decoding, generate
from pipeline.core.logprobs import answer_log_likelihoods
from pipeline.core.models import Base, Compute
from pipeline.core.packing import Group
from pipeline.core.types import Example, Scorer


def judge(
    base: Base,
    attachment: Attachment,
    examples: Sequence[Example],
    *,
    candidates: int,
    score: Scorer,
    decoding: Decoding,
    compute: Compute,
) -> tuple[Tensor, Tensor]:
    """Of every candidate, row 0 … C−1 of the attachment: accuracy of its greedy answers, (C,), and the mean
    log-likelihood of a token of the reference answers, (C,), nats."""
    prompts = [base.prompt_ids(example.messages) for example in examples]
    references = [base.answer_ids(example.target) for example in examples]
    rows = [candidate for candidate in range(candidates) for _ in examples]
    answers = generate(
        base,
        prompts * candidates,
        max_new_tokens=decoding.max_new_tokens,
        batch_tokens=compute.batch_tokens,
        cache_tokens=compute.cache_tokens,
        attachment=attachment,
        rows=rows,
    )
    scores = score(list(examples) * candidates, [base.text(answer.ids) for (answer,) in answers])
    correct = torch.tensor([float(item.correct) for item in scores]).view(candidates, len(examples))
    groups = [
        Group(prompt, [reference], row)
        for row, prompt, reference in zip(rows, prompts * candidates, references * candidates, strict=True)
    ]
    found = answer_log_likelihoods(base, groups, attachment, batch_tokens=compute.batch_tokens)
    likelihood = torch.tensor(found).view(candidates, len(examples)).sum(1)
    return correct.mean(1), likelihood / sum(len(reference) for reference in references)
