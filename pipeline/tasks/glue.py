"""GLUE (arXiv 1804.07461) as questions to a language model: SST-2, MRPC, RTE, CoLA, STS-B, QNLI, MNLI, QQP.

The labels of the test splits are not public, so the development split is reported (MNLI: the matched one). The mirror
has no train split of QNLI and nothing of MNLI and QQP; those come from the hub.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring import glue

REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"


class Subset(NamedTuple):
    """One of the eight.

    asks: the system message. columns: of the texts, in the hub's files. labels: words, by the hub's numbers.
    files: its folder in the mirror. names: the mirror's columns for texts and label, where they are not the hub's.
    """

    asks: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    files: str | None = None
    names: tuple[str, ...] = ()


COLA_HEADER = ("source", "label", "mark", "sentence")
SUBSETS = {
    "sst2": Subset("Is this sentence positive or negative?", ("sentence",), ("negative", "positive"), "SST-2"),
    "mrpc": Subset(
        "Do these sentences mean the same? Answer yes or no.",
        ("sentence1", "sentence2"),
        ("no", "yes"),
        "MRPC",
        ("#1 String", "#2 String", "Quality"),
    ),
    "rte": Subset(
        "Does the second sentence follow from the first? Answer yes or no.",
        ("sentence1", "sentence2"),
        ("yes", "no"),
        "RTE",
    ),
    "cola": Subset("Is this sentence acceptable English? Answer yes or no.", ("sentence",), ("no", "yes"), "CoLA"),
    "stsb": Subset(
        "How similar are these sentences in meaning, from 0 to 5? Answer with a number.",
        ("sentence1", "sentence2"),
        (),
        "STS-B",
        ("sentence1", "sentence2", "score"),
    ),
    "qnli": Subset(
        "Does the sentence answer the question? Answer yes or no.", ("question", "sentence"), ("yes", "no"), "QNLI"
    ),
    "mnli": Subset(
        "Does the second sentence follow from the first? Answer yes, maybe or no.",
        ("premise", "hypothesis"),
        ("yes", "maybe", "no"),
    ),
    "qqp": Subset("Do these questions mean the same? Answer yes or no.", ("question1", "question2"), ("no", "yes")),
}
WORDS = {"entailment": 0, "not_entailment": 1}  # of RTE and QNLI, in the mirror
METRICS = {"mrpc": ("f1",), "qqp": ("f1",), "cola": ("matthews",), "stsb": ("pearson", "spearman")}
IN_MIRROR = {"train": ("sst2", "mrpc", "rte", "cola", "stsb"), "test": ("sst2", "mrpc", "rte", "cola", "stsb", "qnli")}


def _table(name: str, split: str) -> Table:
    part = {"train": "train", "test": "validation_matched" if name == "mnli" else "validation"}[split]
    file = {"train": "train.tsv", "test": "dev.tsv"}[split]
    return Table(
        columns=(),  # the hub's and the mirror's differ
        origins=(Origin("hub", "nyu-mll/glue", REVISION, f"{name}/{part}-00000-of-00001.parquet"),),
        mirror=(f"glue/{SUBSETS[name].files}/{file}",) if name in IN_MIRROR[split] else (),
        header=COLA_HEADER if name == "cola" else (),
    )


TABLES = {f"{split}_{name}": _table(name, split) for split in ("train", "test") for name in SUBSETS}


Name = Literal["sst2", "mrpc", "rte", "cola", "stsb", "qnli", "mnli", "qqp"]


class Options(Section):
    """subset: the name of one of the eight, or of several."""

    subset: Name | tuple[Name, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.subset,) if isinstance(self.subset, str) else self.subset


def needed(options: Options) -> set[str]:
    """The tables that are read."""
    return {f"{split}_{name}" for split in ("train", "test") for name in options.names}


def question(row: Mapping[str, Any]) -> str:
    """All texts of a row, whatever table it is of."""
    names = dict.fromkeys(name for subset in SUBSETS.values() for name in (*subset.columns, *subset.names[:-1]))
    return "\n".join(row[name] for name in names if name in row)


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    return {
        split: [
            _example(f"{name}-{split}-{number}", name, row)
            for name in options.names
            for number, row in enumerate(tables[f"{split}_{name}"])
        ]
        for split in ("train", "test")
    }


def _example(id: str, name: str, row: Mapping[str, Any]) -> Example:
    subset = SUBSETS[name]
    *columns, label = subset.names if subset.names and subset.names[-1] in row else (*subset.columns, "label")
    texts = "\n".join(row[column] for column in columns)
    if subset.labels:
        value = row[label]
        answer = subset.labels[WORDS[value] if value in WORDS else int(value)]
    else:
        answer = f"{float(row[label]):g}"
    return Example(
        id=id,
        messages=({"role": "system", "content": subset.asks}, {"role": "user", "content": texts}),
        target=answer,
        meta={"question": texts, "answer": answer, "labels": list(subset.labels), "subset": name},
    )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        glue.score_label(example.id, answer, example.meta["answer"], example.meta["labels"])
        if example.meta["labels"]
        else glue.score_similarity(example.id, answer, float(example.meta["answer"]))
        for example, answer in zip(examples, answers, strict=True)
    ]


def metrics(examples: Sequence[Example]) -> tuple[str, ...]:
    """GLUE's metrics beside accuracy, by their names in ``pipeline.scoring.metrics``."""
    return METRICS.get(examples[0].meta["subset"], ())


def pairs(examples: Sequence[Example], scores: Sequence[Score]) -> glue.Pairs:
    """What they are computed of. The label 1, whose F1 counts, is "yes"."""
    return glue.pairs(scores, [example.meta["answer"] for example in examples], examples[0].meta["labels"])
