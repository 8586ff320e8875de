"""Who is asked by name is asked in the form that it was trained in, unless the caller brings one or wants none."""

import json

import pytest
import torch

from pipeline.core.artifacts import write_jsonl
from pipeline.core.errors import UserError
from pipeline.core.types import conversation
from pipeline.methods.csreft import gates
from pipeline.model.forward.adapters import save_adapter
from pipeline.serving import export
from pipeline.serving.assistant import Assistant
from pipeline.serving.forms import form_of
from pipeline.serving.skills import seen
from tests.project import make_project

TURNS = (("3 + 4", "7"), ("5 + 1", "6"))
SYSTEMS = {"sums": "Add.", "functions": "Write.", "kinds": "Name it."}


def prepared(folder, begun):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"messages": conversation(system, turns, f"{n} + 1")} for n, (system, turns) in enumerate(begun)]
    write_jsonl(folder / "train.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = make_project(tmp_path_factory.mktemp("made") / "project")
    for task, system in SYSTEMS.items():
        prepared(made.folder / "data/tasks" / task, [(system, TURNS if task == "sums" else ())] * 3)
    adapter, provenance = made.read(made.adapters["csreft-0"])
    save_adapter(made.adapters["csreft-0"], adapter, {**provenance, "tasks": [*SYSTEMS]})
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


@pytest.mark.parametrize("name", ["base", "loreft", "lora:best_lora-groceries"])
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


def test_csreft_is_asked_in_the_form_of_the_skill_that_its_router_sees(project, assistant):
    adapter, _ = project.read(project.adapters["csreft-0"])
    asked = ["9 + 1", "Write.", "Who is the oldest?", "def f(x):"]
    prompts = [assistant.engine.prompt_ids([{"role": "user", "content": question}]) for question in asked]
    _, likely = gates(adapter, assistant.base.model, prompts, 1000)
    torch.testing.assert_close(seen(adapter, assistant.base.model, prompts, 30), likely)
    forms = [list(SYSTEMS)[skill] for skill in likely.argmax(1).tolist()]
    answers = assistant.answer([(question, "csreft") for question in asked], max_new_tokens=6)
    assert [answer.decision.form for answer in answers] == forms
    for question, form, answer in zip(asked, forms, answers, strict=True):
        turns = conversation(SYSTEMS[form], TURNS if form == "sums" else (), question)
        same, bare = (assistant.generate(one, "csreft", max_new_tokens=6, plain=True) for one in (turns, question))
        assert (answer.text, answer.prompt_tokens, answer.decision.weights) == (
            same.text,
            same.prompt_tokens,
            same.decision.weights,
        )
        assert bare.prompt_tokens < answer.prompt_tokens and bare.decision.form == ""
        assert set(answer.decision.weights.values()) <= {0.0, 1.0}  # gates


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


@pytest.mark.parametrize("name", ["expert:sums", "csreft"])
@pytest.mark.parametrize("kind", ["expert", "peft"])
def test_what_is_exported_takes_its_forms_along(project, assistant, tmp_path, name, kind):
    getattr(export, kind)(project, name, tmp_path / "out")
    taken = f"expert:{tmp_path / 'out'}"
    asked, known = (assistant.generate("9 + 1", one, max_new_tokens=8) for one in (taken, name))
    assert (asked.text, asked.prompt_tokens, asked.decision.form) == (
        known.text,
        known.prompt_tokens,
        known.decision.form,
    )
    assert asked.decision.form != ""
    file = tmp_path / "out" / {"expert": "config.json", "peft": "selfadapt.json"}[kind]
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "forms": [{"task": "sums", "turns": [7]}]}))
    with pytest.raises(UserError, match="what is to be known of an expert"):
        Assistant(project).generate("9 + 1", taken)
