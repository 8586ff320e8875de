"""The engine: whoever else is answered at the same time, an answer is what the pipeline alone would give."""

import time

import pytest
import torch

from pipeline.core.errors import UserError
from pipeline.model.decoding.answer import generate
from pipeline.model.forward.base import Adapted, load_base
from pipeline.serving.assistant import Assistant
from pipeline.serving.choosing import Options
from pipeline.serving.engine import advance, choose, forward
from pipeline.serving.jobs import Answered, Decision, Job, Late
from pipeline.serving.rows import Way
from tests.project import make_project
from tests.tiny import tiny_compute

PROMPTS = ["What is 12 + 30?", "Write a function.", "Who is the oldest? Anna, Ben or Carl.", "def", "12 " * 40]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture(scope="module")
def assistant(project):
    return Assistant(project, rows=6)


@pytest.fixture(scope="module")
def offline(project):
    """What the stage ``generate`` would answer: one adapter attached, the batch run to its end."""
    base = load_base(project.model, project.compute())

    def answer(path, prompt: str, tokens: int) -> tuple[str, int]:
        ids = base.prompt_ids([{"role": "user", "content": prompt}])
        adapter, _ = project.read(path)
        with adapter.attached(base.model, project.factors) as attachment:
            ((written,),) = generate(Adapted(base, tiny_compute(), attachment), [ids], max_new_tokens=tokens)
        return base.text(written.ids), len(written.ids)

    return answer


def files(project):
    return {
        **{f"expert:{name}": path for name, path in project.experts.items()},
        **{f"lora:{name}": path for name, path in project.loras.items()},
        **project.adapters,
        **{f"mixture:{name}": path for name, path in project.mixtures.items()},
    }


def test_every_strategy_beside_all_others_answers_as_it_does_alone_in_the_pipeline(project, assistant, offline):
    asked = [(name, path, prompt) for name, path in files(project).items() for prompt in PROMPTS]
    answered = assistant.answer([(prompt, name) for name, _, prompt in asked], max_new_tokens=9)
    answers = set()
    for (name, path, prompt), answer in zip(asked, answered, strict=True):
        assert (answer.text, answer.tokens) == offline(path, prompt, 9), (name, prompt)
        answers.add(answer.text)
    assert len(answers) > len(asked) / 2  # the adapters of this test do differ


def test_rows_come_and_go_at_any_step_without_touching_the_others(assistant):
    names = assistant.strategies()
    heard = [[] for _ in range(40)]
    jobs = [
        assistant.job(PROMPTS[n % 5], names[n % len(names)], heard[n].append, max_new_tokens=1 + n % 13)
        for n in range(40)
    ]
    for number, job in enumerate(jobs):
        assistant.engine.submit(job)
        if number % 3:
            assistant.engine.step()
    while assistant.engine.step():
        pass
    for number, news in enumerate(heard):
        alone = assistant.generate(PROMPTS[number % 5], names[number % len(names)], max_new_tokens=1 + number % 13)
        assert news[-1].text == alone.text
        assert "".join(piece for piece in news if isinstance(piece, str)) == alone.text
        assert isinstance(news[0], Decision)
    assert assistant.engine.load == (0, 0)


def test_a_sample_depends_on_its_seed_and_not_on_its_neighbours(assistant):
    def draw(seed):
        return assistant.generate("def", "expert:sums", max_new_tokens=12, temperature=1.5, seed=seed).text

    alone = draw(1)
    heard = [[] for _ in range(5)]
    for number in range(5):
        job = assistant.job("def", "expert:sums", heard[number].append, max_new_tokens=12, temperature=1.5, seed=number)
        assistant.engine.submit(job)
    while assistant.engine.step():
        pass
    assert heard[1][-1].text == alone
    assert len({news[-1].text for news in heard}) > 1


def test_a_mixture_in_numbers_is_the_mixture_in_a_file(assistant, project, tmp_path):
    file = tmp_path / "mixed.json"
    file.write_text('{"experts": {"sums": 0.7, "functions": [0.1, 0.4]}, "mix": "delta"}')
    from_file = assistant.generate(PROMPTS[0], f"mixture:{file}", max_new_tokens=9)
    way = assistant.available.mixture({"svf-sums-0": 0.7, "functions-0": [0.1, 0.4]}, "delta")
    heard = []
    assistant.engine.finish([Job(one_turn(PROMPTS[0]), way, Options(max_new_tokens=9), heard.append)])
    assert heard[-1].text == from_file.text
    one_hot = assistant.generate(PROMPTS[0], {"kinds": 1, "sums": 0}, max_new_tokens=9)
    assert one_hot.text == assistant.generate(PROMPTS[0], "expert:kinds", max_new_tokens=9).text


def one_turn(prompt):
    return [{"role": "user", "content": prompt}]


@pytest.mark.parametrize("name", ["prompt", "classifier"])
def test_the_first_pass_takes_the_expert_of_the_likeliest_category_and_says_so(assistant, name):
    answer = assistant.generate(PROMPTS[0], name, max_new_tokens=9)
    decision = answer.decision
    assert sum(decision.weights.values()) == pytest.approx(1, abs=1e-5)
    category, _, taken = decision.chosen.partition(" → ")
    assert category == max(decision.weights, key=decision.weights.get)
    assert answer.text == assistant.generate(PROMPTS[0], taken, max_new_tokens=9).text
    assert decision.tokens > 0 < decision.seconds


def test_the_router_of_csreft_says_which_gates_it_opened(assistant):
    decision = assistant.generate(PROMPTS[0], "csreft", max_new_tokens=2).decision
    assert set(decision.weights) == set(assistant.project.domains)
    assert decision.chosen.startswith("csreft, open: ")


def test_a_cancelled_job_leaves_and_is_told_nothing_more(assistant):
    engine, heard, other = assistant.engine, [], []
    job = assistant.job("def", "base", heard.append, max_new_tokens=50)
    engine.submit(job)
    engine.submit(assistant.job("def", "base", other.append, max_new_tokens=8))
    engine.step()
    engine.cancel(job)
    before = list(heard)
    while engine.step():
        pass
    assert heard == before
    assert other[-1].tokens <= 8
    assert engine.load == (0, 0)


def test_a_job_that_is_cancelled_while_it_is_let_in_leaves_the_engine_sound(assistant):
    heard, jobs = [], []

    def cancelling(base, chats):
        assistant.engine.cancel(jobs[0])
        return [(Way("base"), Decision("base"))] * len(chats)

    jobs.append(Job(one_turn("def"), cancelling, Options(max_new_tokens=4), heard.append))
    assistant.engine.finish(jobs)
    assert heard == []
    assert assistant.engine.load == (0, 0)
    assert assistant.generate("def", max_new_tokens=4).tokens <= 4


def test_an_error_in_a_first_pass_ends_its_job_alone(assistant):
    def broken(base, chats):
        raise UserError("no way")

    heard, other, running = [], [], []
    assistant.engine.submit(assistant.job("def", "expert:sums", running.append, max_new_tokens=6))
    assistant.engine.step()
    assistant.engine.submit(Job(one_turn("def"), broken, Options(max_new_tokens=4), heard.append))
    assistant.engine.step()
    assistant.engine.submit(Job(one_turn("def"), broken, Options(max_new_tokens=4), heard.append))
    assistant.engine.submit(assistant.job("def", "base", other.append, max_new_tokens=4))
    while assistant.engine.step():
        pass
    assert [str(news) for news in heard] == ["no way", "no way"]
    assert isinstance(other[-1], Answered)
    assert running[-1].text == assistant.generate("def", "expert:sums", max_new_tokens=6).text


def test_an_error_of_every_row_is_told_to_all_and_leaves_the_engine_sound(assistant, monkeypatch):
    heard = [[], [], []]
    before = assistant.generate("def", "expert:sums", max_new_tokens=5).text
    for news in heard:
        assistant.engine.submit(assistant.job("def", "expert:sums", news.append, max_new_tokens=5))
    monkeypatch.setattr("pipeline.serving.engine.choose", lambda *_, **__: 1 / 0)
    assistant.engine.step()
    monkeypatch.undo()
    assert all(isinstance(news[-1], ZeroDivisionError) for news in heard)
    assert assistant.engine.load == (0, 0)
    assert assistant.generate("def", "expert:sums", max_new_tokens=5).text == before
    # Nothing stays attached to the model.
    assert not [module for module in assistant.base.model.modules() if "forward" in vars(module)]


LONG = "~" * 200  # no other prompt here has this letter, nor as many tokens
# What fails, and which of its calls do, by the token of that letter.
FAULTS = {
    forward: lambda tilde: lambda *_, ids, **__: tilde in ids,
    choose: lambda _: lambda *_, temperature=1.0, **__: 1.7 in torch.as_tensor(temperature),
    advance: lambda _: lambda *_, positions, **__: int(positions.max()) > len(LONG),
}


def answered_beside_others(assistant, asked):
    """What each of (prompt, strategy, temperature) hears last, all of them in the engine at once."""
    heard = [[] for _ in asked]
    for (prompt, name, temperature), news in zip(asked, heard, strict=True):
        job = assistant.job(prompt, name, news.append, max_new_tokens=6, temperature=temperature, seed=3)
        assistant.engine.submit(job)
    while assistant.engine.step():
        pass
    assert assistant.engine.load == (0, 0)
    return [news[-1] for news in heard]


@pytest.mark.parametrize("works", FAULTS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_row_that_cannot_be_computed_ends_alone(assistant, monkeypatch, works, place):
    innocent = [(PROMPTS[0], "base", 0.0), ("def", "expert:sums", 1.0), (PROMPTS[1], "lora:sums", 0.0)]
    innocent += [("def", "expert:kinds", 0.0)]
    alone = [answered_beside_others(assistant, [asked])[0].text for asked in innocent]
    (tilde,) = set(assistant.base.prompt_ids(one_turn("~"))) - set(assistant.base.prompt_ids(one_turn("12")))
    guilty = FAULTS[works](tilde)

    def fails(*passed, **named):
        if guilty(*passed, **named):
            raise RuntimeError("this row")
        return works(*passed, **named)

    monkeypatch.setattr(f"pipeline.serving.engine.{works.__name__}", fails)
    asked = [*innocent[:place], (LONG, "expert:functions", 1.7), *innocent[place:]]
    last = answered_beside_others(assistant, asked)
    assert str(last.pop(place)) == "this row"
    assert [answer.text for answer in last] == alone


def test_a_pass_that_is_too_large_is_done_by_halves(assistant, monkeypatch):
    asked = [(prompt, "expert:sums", 0.0) for prompt in PROMPTS]
    expected = [answer.text for answer in answered_beside_others(assistant, asked)]
    sizes = []

    def small(*passed, ids, **named):
        sizes.append(len(ids))
        if len(ids) > 2:
            raise MemoryError
        return advance(*passed, ids=ids, **named)

    monkeypatch.setattr("pipeline.serving.engine.advance", small)
    assert [answer.text for answer in answered_beside_others(assistant, asked)] == expected
    assert {5, 3, 2, 1} <= set(sizes)


def test_a_listener_that_fails_ends_its_job_alone(assistant):
    heard, other = [], []

    def deaf(news):
        heard.append(news)
        if not isinstance(news, Decision):
            raise ConnectionError("gone")

    assistant.engine.submit(assistant.job("def", "base", deaf, max_new_tokens=6))
    assistant.engine.submit(assistant.job("def", "expert:sums", other.append, max_new_tokens=6))
    while assistant.engine.step():
        pass
    assert [type(news) for news in heard] == [Decision, str, ConnectionError]
    assert other[-1].text == assistant.generate("def", "expert:sums", max_new_tokens=6).text


@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 1e-100, 5e-324])
def test_an_answer_near_temperature_zero_is_the_greedy_one_and_its_neighbours_are_left_alone(assistant, temperature):
    asked = [("def", "expert:sums", temperature), (PROMPTS[0], "base", 0.7), (PROMPTS[1], "base", 0.0)]
    expected = [("def", "expert:sums", 0.0), *asked[1:]]
    alone = [answered_beside_others(assistant, [question])[0].text for question in expected]
    assert [answer.text for answer in answered_beside_others(assistant, asked)] == alone


def test_time_ends_an_answer_where_it_is_and_a_job_that_waited_too_long(assistant, monkeypatch):
    heard, late = [], []
    job = assistant.job("def", "base", heard.append, max_new_tokens=200)
    waiting = assistant.job("def", "base", late.append, max_new_tokens=2)
    assistant.engine.submit(job)
    assistant.engine.step()
    waiting.seconds = job.seconds = 0.001
    assistant.engine.submit(waiting)
    time.sleep(0.01)
    while assistant.engine.step():
        pass
    assert heard[-1].ended == "time"
    assert isinstance(late[-1], Late)


def test_a_job_that_never_fits_is_refused_at_once(assistant):
    with pytest.raises(UserError, match="expected at most 512 tokens, prompt and answer together, got"):
        assistant.generate("def", "base", max_new_tokens=600)


def test_turns_that_the_chat_template_refuses_are_one_sentence(assistant, monkeypatch):
    template = "{{ raise_exception('roles must alternate') }}"
    monkeypatch.setattr(assistant.base.tokenizer, "chat_template", template)
    with pytest.raises(UserError, match="chat template takes in a chat, got: roles must alternate"):
        assistant.generate("def")


def test_the_cache_shrinks_again_after_a_long_row(assistant):
    engine = assistant.engine
    assistant.generate("12 " * 100, "base", max_new_tokens=2)
    assert engine._cache.keys == []
    heard = []
    engine.submit(assistant.job("def", "base", heard.append, max_new_tokens=3))
    engine.step()
    assert engine._cache.keys[0].shape[2] == 128
    while engine.step():
        pass


def test_the_model_is_left_as_it_was(assistant, project):
    fresh = load_base(project.model, project.compute()).model.state_dict()
    for name in assistant.strategies():
        assistant.generate("def", name, max_new_tokens=2)
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in assistant.base.model.state_dict().items())
    assert not [module for module in assistant.base.model.modules() if module._forward_hooks]


def test_ways_are_shared_by_name(assistant):
    assert assistant.strategy("expert:sums") is assistant.strategy("expert:sums")
    assert isinstance(assistant.strategy("base"), Way)


def test_a_row_that_overflows_ends_alone(assistant):
    way, heard, other = assistant.available.mixture({"sums": 1000, "functions": -1000}, "delta"), [], []
    huge = Way("huge", z={module: vector * 1e30 for module, vector in way.z.items()})
    assistant.engine.submit(Job(one_turn("def"), huge, Options(max_new_tokens=4), heard.append))
    assistant.engine.submit(assistant.job("def", "expert:sums", other.append, max_new_tokens=4))
    while assistant.engine.step():
        pass
    assert "NaN or infinity" in str(heard[-1])
    assert other[-1].text == assistant.generate("def", "expert:sums", max_new_tokens=4).text


def test_first_passes_of_several_jobs_are_one_batch_and_decide_as_they_do_alone(assistant):
    alone = [assistant.generate(prompt, "classifier", max_new_tokens=5) for prompt in PROMPTS]
    together = assistant.answer([(prompt, "classifier") for prompt in PROMPTS], max_new_tokens=5)
    for single, answer in zip(alone, together, strict=True):
        assert single.text == answer.text
        assert single.decision.chosen == answer.decision.chosen
        assert list(single.decision.weights.values()) == pytest.approx(list(answer.decision.weights.values()), abs=1e-4)
    assert len({answer.decision.seconds for answer in together}) < len(PROMPTS)
