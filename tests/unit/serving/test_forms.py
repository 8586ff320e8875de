"""Who is asked by name is asked in the form that it was trained in, unless the caller brings one or wants none."""

import pytest

from pipeline.core.artifacts import write_jsonl
from pipeline.core.errors import UserError
from pipeline.core.types import conversation
from pipeline.serving import export
from pipeline.serving.assistant import Assistant
from pipeline.serving.forms import form_of
from tests.project import make_project

TURNS = (("3 + 4", "7"), ("5 + 1", "6"))


def prepared(folder, begun):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"messages": conversation(system, turns, f"{n} + 1")} for n, (system, turns) in enumerate(begun)]
    write_jsonl(folder / "train.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = make_project(tmp_path_factory.mktemp("made") / "project")
    prepared(made.folder / "data/tasks/sums", [("Add.", TURNS)] * 3)
    return made


@pytest.fixture(scope="module")
def assistant(project):
    return Assistant(project, rows=8)


def formed(question):
    return conversation("Add.", TURNS, question)


def test_what_all_questions_of_a_task_begin_with_is_its_form(tmp_path):
    assert form_of("t", prepared(tmp_path / "same", [("Add.", TURNS)] * 3)).turns == formed("")[:-1]
    assert not form_of("t", prepared(tmp_path / "other", [("Add.", TURNS), ("Add.", TURNS[:1])]))
    assert not form_of("t", prepared(tmp_path / "systems", [("Add.", ()), ("Sum.", ())]))
    assert not form_of("t", tmp_path / "not prepared")


@pytest.mark.parametrize("name", ["expert:sums", "lora:sums", "sums"])
def test_an_expert_is_asked_in_its_form(assistant, name):
    answer = assistant.generate("9 + 1", name, max_new_tokens=8)
    same = assistant.generate(formed("9 + 1"), name, max_new_tokens=8, plain=True)
    bare = assistant.generate("9 + 1", name, max_new_tokens=8, plain=True)
    assert (answer.text, answer.prompt_tokens, answer.decision.form) == (same.text, same.prompt_tokens, "sums")
    assert bare.prompt_tokens < answer.prompt_tokens and bare.decision.form == same.decision.form == ""


@pytest.mark.parametrize("name", ["base", "csreft", "expert:functions"])
def test_who_has_no_form_is_asked_as_it_stands(assistant, name):
    asked, plain = (assistant.generate("9 + 1", name, max_new_tokens=4, plain=plain) for plain in (False, True))
    assert (asked.text, asked.prompt_tokens, asked.decision.form) == (plain.text, plain.prompt_tokens, "")


def test_a_system_turn_is_a_form_of_the_callers_own(assistant):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "9 + 1"}]
    asked, plain = (assistant.generate(turns, "sums", max_new_tokens=4, plain=plain) for plain in (False, True))
    assert asked.prompt_tokens == plain.prompt_tokens and asked.decision.form == ""


def test_a_talk_keeps_the_form_before_its_first_turn(assistant):
    talk = [*conversation("", (("1 + 1", "2"),), "9 + 1")[1:]]
    asked = assistant.generate(talk, "sums", max_new_tokens=4)
    whole = assistant.generate([*formed("")[:-1], *talk], "sums", max_new_tokens=4, plain=True)
    assert (asked.text, asked.prompt_tokens) == (whole.text, whole.prompt_tokens)


def test_a_first_pass_asks_whom_it_chooses_in_its_form(assistant):
    answers = assistant.answer([(question, "classifier") for question in ("9 + 1", "Write.", "Who?", "def")])
    for question, answer in zip(("9 + 1", "Write.", "Who?", "def"), answers, strict=True):
        chosen = answer.decision.chosen.partition(" → ")[2]
        same = assistant.generate(question, chosen)
        assert (answer.text, answer.prompt_tokens, answer.decision.form) == (
            same.text,
            same.prompt_tokens,
            same.decision.form,
        )


def test_an_answer_whose_length_nobody_stated_takes_what_the_form_leaves(assistant):
    room = assistant.engine.room
    ids = len(assistant.engine.prompt_ids(formed("9 + 1")))
    long = "9 + 1 " * ((room - ids) // 6)
    while len(assistant.engine.prompt_ids(formed(long))) >= room - 3:
        long = long[:-6]
    assert assistant.generate(long, "sums").tokens <= room
    with pytest.raises(UserError, match="prompt and answer together"):
        assistant.generate(long, "sums", max_new_tokens=200)
    with pytest.raises(UserError, match="prompt and answer together"):
        assistant.generate(long + "9 + 1 " * room, "sums")


def test_an_exported_expert_takes_its_form_along(project, assistant, tmp_path):
    export.expert(project, "expert:sums", tmp_path / "out")
    name = f"expert:{tmp_path / 'out'}"
    asked, known = (assistant.generate("9 + 1", one, max_new_tokens=8) for one in (name, "expert:sums"))
    assert (asked.text, asked.prompt_tokens, asked.decision.form) == (known.text, known.prompt_tokens, "sums")
    (tmp_path / "out/config.json").write_text(
        (tmp_path / "out/config.json")
        .read_text()
        .replace('"turns":[{"', '"turns":[7,{"')
        .replace('"turns": [', '"turns": [7,')
    )
    with pytest.raises(UserError, match="the turns of a form"):
        Assistant(project).generate("9 + 1", name)
