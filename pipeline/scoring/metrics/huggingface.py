"""The pipeline's metrics as classes of Hugging Face's ``evaluate``, for use alone or with ``evaluate.combine``.

    combined = evaluate.combine([Answers("gsm8k"), Answers("math")], force_prefix=True)
    combined.compute(predictions=[text, ...], references=[json.dumps(example), ...])
    evaluate.combine([Paired("f1"), Paired("matthews")]).compute(predictions=[1, 0], references=[1, 1])

Nothing is loaded by name, so no hub is asked. What is to be computed is held in memory; the folder that ``evaluate``
makes for each metric all the same lies among the temporary files, and goes with the process.
"""

import functools
import importlib
import json
import tempfile
from typing import Any

import datasets
import evaluate
import numpy as np

from pipeline.core.types import Example
from pipeline.scoring.metrics import PAIRED, summary


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="selfadapt-metrics-")


class _Metric(evaluate.Metric):
    """A metric named ``config_name``, which keeps its numbers in memory."""

    def __init__(self, name: str) -> None:
        super().__init__(config_name=name, keep_in_memory=True, cache_dir=_folder().name)

    @property
    def name(self) -> str:  # what ``combine`` tells metrics apart by
        return self.config_name


class Paired(_Metric):
    """``accuracy``, ``f1`` (of the label 1), ``matthews``, ``pearson`` or ``spearman`` of numbers."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: datasets.Value("float64") for name in ("predictions", "references")})
        return evaluate.MetricInfo(
            description=str(PAIRED[self.config_name].__doc__), citation="", inputs_description="", features=features
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        given, expected = np.asarray(predictions, float), np.asarray(references, float)
        return {self.config_name: PAIRED[self.config_name](given, expected)}


class Answers(_Metric):
    """A task's scorer: predictions are answers as a model wrote them, references examples, as lines of JSON.

    Gives accuracy, the share of answers that could not be read, and the task's further metrics by name.
    """

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: datasets.Value("string") for name in ("predictions", "references")})
        task = importlib.import_module(f"pipeline.tasks.{self.config_name}")
        return evaluate.MetricInfo(description=str(task.__doc__), citation="", inputs_description="", features=features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        task = importlib.import_module(f"pipeline.tasks.{self.config_name}")
        examples = [Example(**json.loads(reference)) for reference in references]
        return summary(task.score(examples, list(predictions)))
