"""Name the category of a prompt (Transformer², arXiv 2501.06252, Section 3.2, A and B).

A, ``prompt``: the base model is asked for the category. B, ``classifier``: the model with the classification expert z^c
attached is asked the same. The two differ in the attachment alone. The category ``others`` means the base weights.

The model does not write the category: the log-likelihoods of all category names are taken in one pass that
computes each question once, and what all questions begin with once for all (``decoding.weigh``); the largest wins. A
name's log-likelihood includes the end-of-sequence token, so a name that begins another is not favoured.

Deviations
1. No free text is generated (the paper parses it), so that nothing can be unparsable and it costs one prefill.
2. z^c is trained on training splits only. (The public code trains it on the test splits of two of the tasks.)
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import Example, Mixture
from pipeline.model.decoding.choose import continuations
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Adapted, Base, Compute

OTHERS = "others"


class Dispatch(Section, at="dispatch"):
    """How the model is asked.

    names: what the model should say for each domain and for ``others``. system: the system message.
    question: the user's message, with ``{prompt}`` where the prompt to classify goes.
    """

    names: dict[str, str]
    system: str
    question: str


def question(example: Example, settings: Dispatch, target: str) -> Example:
    """The example that asks for the category of ``example``; its choices are the names. target: its answer."""
    if "{prompt}" not in settings.question:
        raise UserError("params.yaml: expected '{prompt}' in dispatch.question, got none; put it where the prompt goes")
    asked = example.messages[-1]["content"]  # earlier turns are worked examples of the task
    pictures = {key: value for key, value in example.messages[-1].items() if key == "images"}
    messages = (
        {"role": "system", "content": settings.system},
        {"role": "user", "content": settings.question.replace("{prompt}", asked), **pictures},
    )
    return Example(id=example.id, messages=messages, target=target, meta={**example.meta, "choices": settings.names})


def said(text: str, settings: Dispatch) -> str | None:
    """The category that an answer in words names, or None. The name must be all of it, up to case and full stop."""
    word = text.strip().rstrip(".").lower()
    return next((category for category, name in settings.names.items() if name.lower() == word), None)


def categories(
    base: Base, examples: Sequence[Example], attachment: Attachment, *, settings: Dispatch, compute: Compute
) -> list[dict[str, float]]:
    """For each example, the log-likelihood of each category's name (nats). attachment: see the module."""
    asked = [question(example, settings, "") for example in examples]
    weights = weigh(
        Adapted(base, compute, attachment),
        [base.prompt_ids(example.messages) for example in asked],
        [continuations(base, example, ended=True) for example in asked],
    )
    return [dict(zip(settings.names, values, strict=True)) for values in weights]


def predicted(log_likelihoods: Mapping[str, float]) -> str:
    """The most likely category; of equals, the first named."""
    return max(log_likelihoods, key=lambda category: log_likelihoods[category])


def mixture(
    ids: Sequence[str],
    chosen: Sequence[str],
    *,
    domains: Sequence[str],
    experts: Sequence[str],
    mix: Literal["paper", "delta"],
) -> Mixture:
    """One row for each prompt: 1 for the expert of the chosen domain, all zeros, the base model, for ``others``.

    ids, chosen: of each prompt, its id and category. domains: of each expert.
    """
    rows = tuple(tuple(1.0 if domain == choice else 0.0 for domain in domains) for choice in chosen)
    return Mixture(experts=tuple(experts), axis="prompt", coefficients=rows, mix=mix, ids=tuple(ids))
