"""The benchmarks' real files: gold answers score 100 %, shuffled ones near chance, and no text is in two places."""

import hashlib
import importlib
import json
import random
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.core.artifacts import read_jsonl
from pipeline.core.errors import UserError
from pipeline.core.types import Example, Origin, Table
from pipeline.data.splits import divide, normalised, of_each_subset
from pipeline.data.tables import MIRROR, mirror, read_table
from pipeline.tasks import arc_challenge, arc_easy, gsm8k, mbpp_pro
from stages import fetch, prepare

needs_mirror = pytest.mark.skipif(
    mirror() is None or not (mirror() / "MANIFEST.json").is_file(),  # type: ignore[operator]
    reason=f"{MIRROR} names no mirror of the benchmarks",
)

COMMONSENSE = ("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
ARITHMETIC = ("aqua", "gsm8k", "mawps", "svamp")
# task, options, rows of its test split, the most that shuffled gold may score
TASKS: list[tuple[str, dict[str, Any], int, float]] = [
    ("gsm8k", {}, 1319, 0.03),
    ("math", {}, 5000, 0.03),
    ("arc_easy", {}, 2376, 0.29),
    ("arc_challenge", {}, 1172, 0.31),
    *(("commonsense", {"subsets": [name]}, count, chance) for name, count, chance in [
        ("boolq", 3270, 0.57), ("piqa", 1838, 0.54), ("siqa", 1954, 0.38), ("hellaswag", 1000, 0.31),
        ("winogrande", 1267, 0.55), ("arc_easy", 2376, 0.3), ("arc_challenge", 1172, 0.31), ("openbookqa", 500, 0.32),
    ]),
    *(("arithmetic", {"subsets": [name]}, count, chance) for name, count, chance in [
        ("aqua", 254, 0.32), ("gsm8k", 1319, 0.03), ("mawps", 238, 0.1), ("svamp", 1000, 0.06),
    ]),
    *(("glue", {"subset": name}, count, chance) for name, count, chance in [
        ("sst2", 872, 0.56), ("mrpc", 408, 0.62), ("rte", 277, 0.6), ("cola", 1043, 0.63), ("stsb", 1500, 0.3),
    ]),
]  # fmt: skip


def named(case: tuple[str, dict[str, Any], int, float]) -> str:
    return "-".join([case[0], *(str(value if isinstance(value, str) else value[0]) for value in case[1].values())])


@cache
def native(task: str, options: str) -> dict[str, list[Example]]:
    module = importlib.import_module(f"pipeline.tasks.{task}")
    settings = module.Options.parse(json.loads(options), "options")
    needed = module.needed(settings) if hasattr(module, "needed") else module.TABLES
    return module.native_splits({name: read_table(name, module.TABLES[name]) for name in needed}, settings)


@needs_mirror
@pytest.mark.parametrize("case", TASKS, ids=named)
def test_gold_scores_100_percent_and_shuffled_gold_near_chance(case: tuple[str, dict[str, Any], int, float]) -> None:
    task, options, count, chance = case
    score = importlib.import_module(f"pipeline.tasks.{task}").score
    for split, examples in native(task, json.dumps(options)).items():
        scores = score(examples, [example.target for example in examples])
        assert [one.id for one in scores if not one.correct or one.value < 1 or not one.marked] == [], split
        if split == "test":
            assert len(examples) == count
            targets = [example.target for example in examples]
            random.Random(0).shuffle(targets)
            some = examples[:1000]
            assert sum(one.correct for one in score(some, targets[: len(some)])) / len(some) <= chance


@needs_mirror
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("task", "count"), [("humaneval", 164), ("mbpp_pro", 378)])
def test_canonical_solutions_pass_in_the_sandbox(task: str, count: int) -> None:
    module = importlib.import_module(f"pipeline.tasks.{task}")
    splits = native(task, "{}")  # which runs every reference
    assert len(splits["test"]) == count
    for examples in splits.values():
        drawn = random.Random(0).sample(examples, min(50, len(examples)))
        scores = module.score(drawn, [example.target for example in drawn])
        assert [one.id for one in scores if not (one.correct and one.marked and one.also.get("plus", 1))] == []
    some = splits["test"][:20]
    shifted = [example.target for example in [*some[1:], some[0]]]
    assert sum(one.correct for one in module.score(some, shifted)) <= 1


def test_worked_tasks_stand_before_every_question_and_are_not_trained_on() -> None:
    def row(number: int, text: str, code: str) -> dict[str, Any]:
        tests = [f"assert f({one}) == {one}" for one in range(3)]
        return {"task_id": number, "text": text, "code": code, "test_list": tests, "test_setup_code": ""}

    tested = {"task_id": "Mbpp/9", "prompt": '"""\nGive x.\nassert f(1) == 1\n"""\n', "entry_point": "f", "atol": 0}
    tested |= {"canonical_solution": "def f(x): return x", "base_input": [[1]], "plus_input": [[2]]}
    codes = ["def f(x): return x", "def f(x):\n    return x", "def f(x):\n    y = x\n    return y"]
    texts = ["Give x.", "Return x.", "Name x, then return it."]  # the first is the tested one: not to be shown
    train = [row(number, text, code) for number, (text, code) in enumerate(zip(texts, codes, strict=True))]
    tables = {"train": train, "test": [{**tested, "assertion": "assert f(1) == 1"}]}
    plain = mbpp_pro.native_splits(tables, mbpp_pro.Options())
    worked = mbpp_pro.native_splits(tables, mbpp_pro.Options(worked=1))
    (shown,) = [one for one in plain["train"] if one.id == "Mbpp/1"]
    assert [one.id for one in plain["train"]] == ["Mbpp/0", "Mbpp/1", "Mbpp/2"]
    assert [one.id for one in worked["train"]] == ["Mbpp/0", "Mbpp/2"]
    for example in (*worked["train"], *worked["test"]):
        (before,) = [one for one in (*plain["train"], *plain["test"]) if one.id == example.id]
        system, *turns, asked = example.messages
        assert (system, asked) == before.messages
        assert turns == [shown.messages[-1], {"role": "assistant", "content": shown.target}]
        assert (example.target, example.meta) == (before.target, before.meta)


@needs_mirror
def test_the_worked_problems_of_gsm8k_are_short_and_not_trained_on() -> None:
    tables = {split: read_table(f"gsm8k/{split}", table) for split, table in gsm8k.TABLES.items()}
    plain = gsm8k.native_splits(tables, gsm8k.Options())
    worked = gsm8k.native_splits(tables, gsm8k.Options(worked=3))
    assert [len(plain["train"]) - len(worked["train"]), len(worked["test"])] == [3, 1319]
    gone = {example.id for example in plain["train"]} - {example.id for example in worked["train"]}
    shown = [example for example in plain["train"] if example.id in gone]
    system, *turns, asked = worked["test"][0].messages
    assert (system, asked) == plain["test"][0].messages
    assert [turn["content"] for turn in turns[1::2]] == [
        one.target for one in sorted(shown, key=lambda one: len(one.target))
    ]
    assert all(one.target.count("\n") >= 2 and len(one.target) < 60 for one in shown)


@pytest.mark.parametrize("task", [arc_easy, arc_challenge])
def test_arc_may_be_asked_by_cloze(task: ModuleType) -> None:
    offered = {"text": ["ice", "fire"], "label": ["1", "2"]}
    row = {"id": "x", "question": "Which is hot?", "choices": offered, "answerKey": "2"}
    tables = {"train": [row], "test": [row]}
    (asked,) = task.native_splits(tables, task.Options(form="cloze"))["test"]
    assert asked.messages == ({"role": "plain", "content": "Question: Which is hot?\nAnswer:"},)
    assert (asked.target, asked.choices, asked.meta["answer"]) == (" fire", {"A": "ice", "B": "fire"}, "B")
    assert [item.correct for item in task.score([asked] * 2, [" fire", " ice"])] == [True, False]
    (lettered,) = task.native_splits(tables, task.Options())["test"]
    assert lettered.messages[-1]["content"] == "Which is hot?\nA) ice\nB) fire"


@needs_mirror
def test_no_text_of_any_test_split_is_trained_on(tmp_path: Path) -> None:
    options: dict[str, dict[str, Any]] = {
        "gsm8k": {},
        "math": {},
        "arc_easy": {},
        "arc_challenge": {},
        "arithmetic": {"subsets": list(ARITHMETIC)},
        "commonsense": {"subsets": list(COMMONSENSE)},
    }
    settings = fetch.Tasks(tasks={task: {"data": {"options": value}} for task, value in options.items()})
    rows = fetch.run(settings=settings, raw=tmp_path / "raw")
    assert rows["gsm8k/test"] == 1319
    tested: dict[str, str] = {}
    trained: dict[str, set[str]] = {}
    counts = {}
    for task, value in options.items():
        data = prepare.TaskData(
            domain="math", seed=1, train="all", validation="all", test="all", few_shot=10, options=value
        )
        counts[task] = prepare.run(task=task, data=data, raw=tmp_path / "raw", examples=tmp_path / task)
        for split in ("test", "few_shot", "validation", "train"):
            for row in read_jsonl(tmp_path / task / f"{split}.jsonl"):
                text = normalised(Example(**{**row, "messages": tuple(row["messages"])}))
                if split in ("test", "few_shot"):
                    tested.setdefault(text, task)
                else:
                    trained.setdefault(task, set()).add(text)
    for task, texts in trained.items():
        assert not [text for text in texts if text in tested], task
    assert counts["math"]["contaminated"] > 0, "a problem of the train split stands in the test split"
    assert counts["arithmetic"]["contaminated"] > 2000, "LLM-Adapters' instructions hold most of its test problems"


def examples_of(texts: str) -> list[Example]:
    return [
        Example(f"{number}-{text}", ({"role": "user", "content": f"Say {text}."},), text, {"question": text})
        for number, text in enumerate(texts)
    ]


def test_a_benchmark_is_divided_without_overlap() -> None:
    split = {"train": examples_of("abcdefghijabx"), "test": examples_of("uvwxyz")}
    sizes = {"train": "all", "validation": "all", "test": "all", "few_shot": 2}
    other = hashlib.sha256(b"j").hexdigest()[:16]
    splits, dropped = divide(split, sizes, 0, {other})  # type: ignore[arg-type]
    assert dropped == {"contaminated": 2, "repeated": 2, "same_as_few_shot": 0}  # x and j; a and b
    assert (len(splits["train"]), len(splits["validation"])) == (4, 5)
    assert (len(splits["test"]), len(splits["few_shot"])) == (4, 2)
    texts = [normalised(example) for examples in splits.values() for example in examples]
    assert len(texts) == len(set(texts)) == 15
    assert splits == divide(split, sizes, 0, {other})[0]  # type: ignore[arg-type]
    assert splits != divide(split, sizes, 1, {other})[0]  # type: ignore[arg-type]


def test_as_many_test_examples_of_every_subset_can_be_asked_for() -> None:
    sizes = {"a": 5, "b": 9, "c": 3}
    pool = [
        Example(f"{name}-{number}", ({"role": "user", "content": f"{name} {number}"},), "", {"subset": name})
        for name, size in sizes.items()
        for number in range(size)
    ]
    drawn = of_each_subset(pool, 3, seed=1)
    assert [one.meta["subset"] for one in drawn] == list("aaabbbccc")
    assert [one.id for one in drawn] == [one.id for one in pool if one in drawn], "they keep their order"
    assert drawn == of_each_subset(pool, 3, seed=1) != of_each_subset(pool, 3, seed=2)
    with pytest.raises(UserError, match="expected 4 test examples of every subset, got 3 of 'c'"):
        of_each_subset(pool, 4, seed=1)


def test_a_size_the_benchmark_has_not_got_is_one_sentence() -> None:
    sizes = {"train": 9, "validation": 0, "test": 1, "few_shot": 0}
    with pytest.raises(UserError, match="expected 9 examples for the split 'train', got 2 from the benchmark"):
        divide({"train": examples_of("abcd"), "test": examples_of("z")}, sizes, 0, ())


# ---- the tables ----------------------------------------------------------------------------------------------------

TABLE = Table(("a", "b"), (Origin("hub", "team/set", "0" * 40, "rows.parquet"),), ("x/rows.jsonl",))
ROWS = b'{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n'


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror of one file."""
    folder = tmp_path / "mirror"
    (folder / "x").mkdir(parents=True)
    (folder / "x/rows.jsonl").write_bytes(ROWS)
    listed(folder, ROWS)
    monkeypatch.setenv(MIRROR, str(folder))
    return folder


def listed(folder: Path, content: bytes) -> None:
    entry = {"local": "x/rows.jsonl", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "MANIFEST.json").write_text(json.dumps([entry]))


def test_a_mirror_is_read_and_checked(made: Path) -> None:
    assert read_table("it", TABLE) == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


@pytest.mark.parametrize(
    ("content", "listing", "sentence"),
    [
        (ROWS.replace(b"4", b"5"), ROWS, "expected sha256 .* it is not the pinned file; get the mirror again"),
        (ROWS[:-9], ROWS, "expected 34 bytes in .*, got 25: it is truncated; get the mirror again"),
        (None, ROWS, "expected the file .*rows.jsonl, got: No such file"),
        (b'{"a": 1}\n', b'{"a": 1}\n', "expected the column 'b' in row 0 of x/rows.jsonl, which has a; its schema"),
        (b'{"a": 1\n', b'{"a": 1\n', "expected rows in x/rows.jsonl, got: .*; the file is damaged: get it again"),
        (b"", b"", "expected rows in it, got none"),
        (ROWS, None, "expected x/rows.jsonl in .*MANIFEST.json, which does not list it"),
    ],
)
def test_a_mirror_that_is_not_as_listed_is_one_sentence(
    made: Path, content: bytes | None, listing: bytes | None, sentence: str
) -> None:
    if content is None:
        (made / "x/rows.jsonl").unlink()
    else:
        (made / "x/rows.jsonl").write_bytes(content)
    if listing is None:
        (made / "MANIFEST.json").write_text("[]")
    else:
        listed(made, listing)
    with pytest.raises(UserError, match=sentence) as caught:
        read_table("it", TABLE)
    assert "\n" not in str(caught.value)


def test_a_missing_mirror_and_a_table_it_has_not_got_are_one_sentence(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="expected it in the mirror .*, which has not got it; unset SELFADAPT_MIRROR"):
        read_table("it", Table((), ()))
    monkeypatch.setenv(MIRROR, str(made / "nowhere"))
    with pytest.raises(UserError, match="expected a mirror with a MANIFEST.json in .*nowhere, found none"):
        read_table("it", TABLE)


def test_the_hub_offline_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="expected rows.parquet of team/set@000000000000 from the model hub") as caught:
        read_table("it", TABLE)
    assert "\n" not in str(caught.value)


def test_the_hub_uses_what_its_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    path = tmp_path / "datasets--team--set/snapshots" / ("0" * 40) / "rows.parquet"
    path.parent.mkdir(parents=True)
    Dataset.from_list([{"a": 1, "b": 2}]).to_parquet(path)
    assert read_table("it", TABLE) == [{"a": 1, "b": 2}]


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="found none; correct SELFADAPT_MIRROR"):
        fetch.run(settings=fetch.Tasks(tasks={"gsm8k": {"data": {"options": {}}}}), raw=tmp_path / "raw")
    assert list(tmp_path.iterdir()) == []


def test_generated_tasks_have_no_tables(tmp_path: Path) -> None:
    assert fetch.run(settings=fetch.Tasks(tasks={"sums": {"data": {"options": {}}}}), raw=tmp_path / "raw") == {}
    assert json.loads((tmp_path / "raw/held_out.json").read_text()) == {}
