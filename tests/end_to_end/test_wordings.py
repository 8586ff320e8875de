"""After a whole run of the profile laptop: the first things a person asks are answered right, in words of their own.

    selfadapt run && python -m pytest -m long tests/end_to_end/test_wordings.py -s

Sixty wordings that no task has, twenty for each trained one, are asked in the form of their task under the
classification expert, which has to find the expert. They are held against what that expert has on the test prompts,
which are in the trained wordings. It prints what docs/results.md says. PROJECT in the environment names the run's
folder, where it is another.
"""

import os
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from pipeline.adaptation import dispatch
from pipeline.core.types import Example
from pipeline.methods.svf import Mixing, stack_experts
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.base import Adapted, Compute, load_base, prepare_process
from pipeline.scoring import numbers
from pipeline.serving.assistant import Assistant
from pipeline.serving.project import Project
from stages.generate import answered

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]

SEED = 1000  # of the first question, and those behind it of the others: no split has them
AS_GOOD = 0.8  # at least, of the accuracy on trained wordings
WORDINGS = {
    "sums": (
        "{a} and {b} together make what?",
        "If you add {a} to {b}, what do you get?",
        "Work out {a} + {b} for me.",
        "What does {a} + {b} come to?",
        "Sum: {a}, {b}",
        "I need {a} plus {b}, please.",
        "Could you tell me what {a} and {b} add up to?",
        "{a} increased by {b} is?",
        "What number is {b} more than {a}?",
        "Put {a} and {b} together.",
        "The total of {a} and {b}?",
        "Please add {a} and {b}.",
        "Give me the result of {a}+{b}",
        "There are {a} boys and {b} girls. How many children are there?",
        "{a} + {b} = ?",
        "Do you know {a} plus {b}?",
        "Solve {a} + {b}.",
        "We had {a} apples and bought {b}. How many do we have?",
        "find the sum {a} + {b}",
        "Quick: {a} plus {b}!",
    ),
    "functions": (
        "Implement a function in Python which returns {says}:\n{head}",
        "{head}\n    # TODO: return {says}",
        "Finish the code so that {says} is returned:\n{head}",
        "Here is a signature:\n{head}\nMake it return {says}.",
        "Show me Python code that returns {says}.\n{head}",
        "Your job: return {says}.\n{head}",
        "{head}\nThe result should be {says}.",
        "Give me a function for this: it returns {says}.\n{head}",
        "Let the following function return {says}:\n{head}",
        "I want {says}. Write it as\n{head}",
        "In Python, how can I return {says}?\n{head}",
        "Code a function whose result is {says}.\n{head}",
        "{head}\nBody, please. What comes back is {says}.",
        "Could you complete this so that it gives back {says}?\n{head}",
        "Help me: the function must return {says}.\n{head}",
        "What would a function look like that returns {says}?\n{head}",
        "Task: {says}.\n{head}",
        "Please write Python: return {says}.\n{head}",
        "Supply the missing body. The function returns {says}.\n{head}",
        "{head}\n    ...  # {says}",
    ),
    "kinds": (
        "Which of the following is {one}? {listed}",
        "{listed}. Where is the {kind}?",
        "Among {listed}, which is {one}?",
        "Only one of these words means {one}: {listed}.",
        "Choose {one}: {either}?",
        "I am looking for {one}. Is it {either}?",
        "Show me the {kind} in: {listed}",
        "{listed} - which word is the {kind}?",
        "Can you spot the {kind} among {listed}?",
        "Words: {listed}. Which is {one}?",
        "Who is {one} here, {either}?",
        "From {listed}, select the {kind}.",
        "Say which one is {one}: {listed}",
        "What would you call {one}: {either}?",
        "Point out the {kind}: {listed}",
        "There is {one} among these: {listed}. Name it.",
        "Is {either} {one}?",
        "The {kind} is one of {listed}. Which?",
        "Which of {listed} belongs to the kind {kind}?",
        "Identify the {kind} ({listed}).",
    ),
}
OWN = ("What is 17 + 25?", "Please add 64 and 19.")  # the README's question, and one more
RIGHT = dict(zip(OWN, ("42", "83"), strict=True))


@pytest.fixture(scope="module")
def project() -> Project:
    found = Project(Path(os.environ.get("PROJECT", Path(__file__).resolve().parents[2])))
    missing = [
        path for path in (found.model, *found.experts.values(), found.classifier) if not (path and path.exists())
    ]
    if missing or found.params["profile"] != "laptop":
        pytest.skip(f"needs a finished run of the profile laptop, which has {missing[:1] or 'another profile'}")
    return found


def questions(project: Project, task: str) -> list[Example]:
    """A question of a task in each of its other wordings."""
    module = import_module(f"pipeline.tasks.{task}")
    own, data = module.WORDINGS, project.params["tasks"][task]["data"]
    found: list[Example] = []
    for number, wording in enumerate(WORDINGS[task]):
        module.WORDINGS = (wording,)
        try:
            one = next(module.examples(SEED + number, module.Options.parse(data["options"], task)))
        finally:
            module.WORDINGS = own
        found.append(Example(f"{number} {one.id}", one.messages, one.target, {**one.meta, "domain": data["domain"]}))
    return found


@pytest.fixture(scope="module")
def answers(project) -> dict[str, tuple[list[Example], list[str], list[str]]]:
    """task → its questions, the category that each was put into, and the answer of that category's expert."""
    compute = project.section(Compute)
    prepare_process(compute)
    base = load_base(project.model, compute)
    by_task = {task: questions(project, task) for task in WORDINGS}
    asked = [example for examples in by_task.values() for example in examples]
    classifier = project.read_svf(project.classifier)
    with classifier.attached(base.model, project.factors) as attachment:
        settings = project.section(dispatch.Dispatch)
        of_all = dispatch.categories(base, asked, attachment, settings=settings, compute=compute)
    decided = dict(zip([example.id for example in asked], map(dispatch.predicted, of_all), strict=True))
    names, mix = list(project.domains), project.section(Mixing).mix
    stacked = stack_experts([project.read_svf(project.experts[name]) for name in project.domains.values()], names, mix)
    mixed = dispatch.mixture([*decided], [*decided.values()], domains=names, experts=names, mix=mix)
    found = {}
    with stacked.mixed_by(mixed).attached(base.model, project.factors) as attachment:
        for task, examples in by_task.items():
            ids = [example.id for example in examples]
            decoding = Decoding.parse(project.params["tasks"][task]["decoding"], task)
            adapted = Adapted(base, compute, attachment)
            given = answered(adapted, examples, decoding, attachment.rows(ids), lambda _: None)
            found[task] = (examples, [decided[id_] for id_ in ids], [base.text(answer.ids) for answer in given])
    return found


@pytest.mark.parametrize("task", WORDINGS)
def test_wordings_that_nobody_trained_on_are_answered_nearly_as_well(project, answers, task):
    module = import_module(f"pipeline.tasks.{task}")
    examples, decided, texts = answers[task]
    assert len(set(WORDINGS[task])) == 20
    assert not set(WORDINGS[task]) & set(module.WORDINGS)
    right = [score.correct for score in module.score(examples, texts)]
    expert = pd.read_parquet(project.artifact(f"scores/{task}-svf-{project.seed}", ".parquet"))["correct"].mean()
    domain = decided.count(examples[0].meta["domain"])
    print(f"{task}: domain {domain}, answer {sum(right)} right of {len(right)}; the expert on its test: {expert:.3f}")
    for example, text, correct in zip(examples, texts, right, strict=True):
        if not correct:
            print(f"  wrong: {example.messages[-1]['content']!r} {text!r}")
    assert sum(right) / len(right) >= AS_GOOD * expert


@pytest.fixture(scope="module")
def assistant(project) -> Assistant:
    return Assistant(project)


@pytest.mark.parametrize("strategy", ["expert:sums", "classifier", "csreft"])
def test_the_first_question_is_answered_right(assistant, strategy):
    found = assistant.answer([(question, strategy) for question in OWN], max_new_tokens=24)
    for question, answer in zip(OWN, found, strict=True):
        print(f"{strategy}: {question} {answer.text.strip()} ({answer.decision.chosen}, {answer.decision.form})")
        assert numbers.score("", answer.text, RIGHT[question]).correct
