"""After a whole run of the profile laptop: the first things a person asks are answered right, in words of their own.

    selfadapt run && python -m pytest -m long tests/end_to_end/test_wordings.py -s

Sixty wordings that no task has, twenty for each trained one, are asked in the form of their task under the
classification expert, which has to find the expert; and so are questions in the trained wordings. It prints what
docs/results.md says. PROJECT in the environment names the run's folder, where it is another.
"""

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path

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

EACH = 2  # questions in each of the twenty wordings; as many altogether in the trained ones
SEED = 1000  # and those behind it: no split has them
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


def questions(project: Project, task: str, wordings: Sequence[str]) -> list[Example]:
    """Questions of a task, ``EACH`` in each of the wordings."""
    module = import_module(f"pipeline.tasks.{task}")
    own, data = module.WORDINGS, project.params["tasks"][task]["data"]
    found: list[Example] = []
    for number, wording in enumerate(wordings):
        module.WORDINGS = (wording,)
        try:
            made = module.examples(SEED + number, module.Options.parse(data["options"], task))
            found += [
                Example(f"{number} {one.id}", one.messages, one.target, {**one.meta, "domain": data["domain"]})
                for one in islice(made, EACH)
            ]
        finally:
            module.WORDINGS = own
    return found


class Dispatched:
    """The base model under the classification expert."""

    def __init__(self, project: Project) -> None:
        self.project, self.compute = project, project.section(Compute)
        prepare_process(self.compute)
        self.base = load_base(project.model, self.compute)
        self.settings = project.section(dispatch.Dispatch)
        self.experts = {domain: project.read_svf(project.experts[name]) for domain, name in project.domains.items()}

    def decided(self, asked: Sequence[Example]) -> list[str]:
        """The category of each question."""
        classifier = self.project.read_svf(self.project.classifier)
        with classifier.attached(self.base.model, self.project.factors) as attachment:
            of_all = dispatch.categories(self.base, asked, attachment, settings=self.settings, compute=self.compute)
        return [dispatch.predicted(values) for values in of_all]

    def answers(self, asked: Sequence[Example], domains: Sequence[str], decoding: Mapping) -> list[str]:
        """Each question answered by the expert of its domain, or by the base model."""
        names = list(self.experts)
        mix = self.project.section(Mixing).mix
        stacked = stack_experts([*self.experts.values()], names, mix)
        ids = [example.id for example in asked]
        mixed = dispatch.mixture(ids, domains, domains=names, experts=names, mix=mix)
        with stacked.mixed_by(mixed).attached(self.base.model, self.project.factors) as attachment:
            adapted = Adapted(self.base, self.compute, attachment)
            given = answered(adapted, asked, Decoding.parse(decoding, ""), attachment.rows(ids), lambda _: None)
        return [self.base.text(answer.ids) for answer in given]


@pytest.fixture(scope="module")
def dispatched(project):
    return Dispatched(project)


@pytest.mark.parametrize("task", WORDINGS)
def test_wordings_that_nobody_trained_on_are_answered_nearly_as_well(project, dispatched, task):
    module = import_module(f"pipeline.tasks.{task}")
    trained = questions(project, task, [module.WORDINGS[n % len(module.WORDINGS)] for n in range(20)])
    assert len(set(WORDINGS[task])) == 20
    assert not set(WORDINGS[task]) & set(module.WORDINGS)
    found = {}
    for name, asked in (("trained", trained), ("others", questions(project, task, WORDINGS[task]))):
        domain, decoding = asked[0].meta["domain"], project.params["tasks"][task]["decoding"]
        decided = dispatched.decided(asked)
        right = [score.correct for score in module.score(asked, dispatched.answers(asked, decided, decoding))]
        found[name] = sum(right) / len(right)
        print(
            f"{task}, {name} wordings: domain right {decided.count(domain)}, answer right {sum(right)} of {len(asked)}"
        )
    assert found["others"] >= AS_GOOD * found["trained"]


@pytest.mark.parametrize("strategy", ["expert:sums", "classifier", "csreft"])
def test_the_first_question_is_answered_right(project, strategy):
    assistant = Assistant(project)
    answers = assistant.answer([(question, strategy) for question in OWN], max_new_tokens=24)
    for question, answer in zip(OWN, answers, strict=True):
        print(
            f"{strategy}: {question} -> {answer.text.strip()} ({answer.decision.chosen}; form {answer.decision.form})"
        )
        assert numbers.score("", answer.text, RIGHT[question]).correct
