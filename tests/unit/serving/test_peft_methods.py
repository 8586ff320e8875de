"""SVF, LoReFT and CS-ReFT inside peft compute, save, load, switch and train as they should."""

import copy
import subprocess
import sys

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import selfadapt
from pipeline.core.errors import UserError
from pipeline.methods.svf import single
from pipeline.model.forward.base import load_base
from pipeline.serving import export
from pipeline.serving.assistant import Assistant
from pipeline.serving.peft.folder import read, tuned
from tests.project import make_project
from tests.tiny import tiny_model

PROMPT = "What is 12 + 30?"
TAKEN = ["expert:sums", "mixture:few_shot-groceries", "lora:sums", "loreft", "csreft"]
OURS = ["expert:sums", "loreft", "csreft"]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture(scope="module")
def assistant(project):
    return Assistant(project)


@pytest.fixture(scope="module")
def exported(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for name in TAKEN:
        export.peft(project, name, folder / name.replace(":", "-"))
    return lambda name: folder / name.replace(":", "-")


def plain_model(project):
    return AutoModelForCausalLM.from_pretrained(project.model, dtype=torch.float32).eval()


def adapter_of(project, name):
    return project.read(project.file_of(name))[0]


def logits(model, **more) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, **more).logits


def expected(project, name) -> torch.Tensor:
    """The logits of a prompt as this project computes them."""
    base = load_base(project.model, project.compute())
    with adapter_of(project, name).attached(base.model, project.factors) as attachment, torch.no_grad():
        attachment.begin(torch.arange(1), torch.ones_like(IDS, dtype=torch.bool))
        return base.model(input_ids=IDS).logits


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", TAKEN)
def test_an_exported_folder_loads_in_peft_and_computes_the_same(project, exported, name):
    plain = logits(plain_model(project))
    model = PeftModel.from_pretrained(plain_model(project), exported(name))
    wanted = expected(project, name)
    close(logits(model), wanted)
    assert (wanted - plain).abs().max() > 0.1
    with model.disable_adapter():
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model.unload()), plain)


@pytest.mark.parametrize("name", OURS)
def test_generate_reads_the_prompt_as_the_engine_does(project, assistant, exported, name):
    """Two prompts of different lengths, padded on the left."""
    base = load_base(project.model, project.compute())
    model = PeftModel.from_pretrained(plain_model(project), exported(name))
    prompts = [base.prompt_ids([{"role": "user", "content": text}]) for text in (PROMPT, "def f(x):")]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    found = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    texts = [base.text(row[longest:]) for row in found.tolist()]
    asked = [(text, name) for text in (PROMPT, "def f(x):")]
    assert texts == [answer.text for answer in assistant.answer(asked, max_new_tokens=8, plain=True)]


@pytest.mark.parametrize("first", ["import selfadapt", "import peft"])
def test_importing_the_package_is_enough_in_either_order(project, exported, first):
    code = (
        f"{first}\nimport selfadapt\n"
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n"
        f"base = AutoModelForCausalLM.from_pretrained({str(project.model)!r})\n"
        f"print(type(PeftModel.from_pretrained(base, {str(exported('expert:sums'))!r})).__name__)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "PeftModelForCausalLM"


def test_importing_the_package_loads_no_peft_and_no_torch():
    code = "import sys, selfadapt; assert not {'peft', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


CONFIGS = {
    "svf": lambda: selfadapt.SvfConfig(task_type="CAUSAL_LM"),
    "loreft": lambda: selfadapt.LoReftConfig(task_type="CAUSAL_LM", positions="f2+l2"),
    "csreft": lambda: selfadapt.CsReftConfig(task_type="CAUSAL_LM", positions="f2+l2", skills=["a", "b"]),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_it_starts_as_the_base_model_and_only_the_adapter_is_trained(project, kind):
    model = plain_model(project)
    plain = logits(model)
    made = get_peft_model(model, CONFIGS[kind]())
    assert torch.equal(logits(made.eval()), plain)
    trained = [name for name, parameter in made.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".svf_delta." in name or ".reft_edits." in name for name in trained)


def rows(skills: bool) -> list[dict]:
    """A prompt of five tokens, and the same answer of three behind each."""
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 60, (5,), generator=draw).tolist() for _ in range(8)]
    made = [{"input_ids": [*prompt, 11, 12, 13], "labels": [-100] * 5 + [11, 12, 13]} for prompt in prompts]
    return [{**row, "attention_mask": [1] * 8, **({"skills": n % 2} if skills else {})} for n, row in enumerate(made)]


def trained(model, folder, *, skills: bool = False, **settings) -> list[float]:
    """Losses of a few steps of transformers' own trainer."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=0.02,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        **settings,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows(skills))
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_transformers_trainer_trains_it_and_what_it_saves_loads_again(project, kind, checkpointing, tmp_path):
    model = get_peft_model(plain_model(project), CONFIGS[kind]())
    losses = trained(model, tmp_path / "run", gradient_checkpointing=checkpointing)
    assert losses[-1] < 0.9 * losses[0]
    model.save_pretrained(tmp_path / "saved")
    loaded = PeftModel.from_pretrained(plain_model(project), tmp_path / "saved")
    assert torch.equal(logits(loaded), logits(model.eval()))
    adapter = read(tmp_path / "saved")
    close(logits(tuned(plain_model(project), adapter)), logits(model))
    if kind != "svf":
        rotation = adapter.state()["rotation"]
        close(rotation @ rotation.mT, torch.eye(rotation.shape[2]).expand(*rotation.shape[:2], -1, -1))


@pytest.mark.parametrize("name", TAKEN)
def test_an_exported_folder_is_a_strategy(project, assistant, exported, name):
    found, known = (assistant.generate(PROMPT, one, max_new_tokens=8) for one in (f"expert:{exported(name)}", name))
    assert found.text == known.text


def test_experts_are_switched_and_mixed(project, exported):
    other = adapter_of(project, "expert:functions")
    model = PeftModel.from_pretrained(plain_model(project), exported("expert:sums"), adapter_name="sums")
    one = logits(model)
    export.peft(project, "expert:functions", exported("functions"))
    model.load_adapter(exported("functions"), "functions")
    assert torch.equal(logits(model), one)
    model.set_adapter("functions")
    close(logits(model), expected(project, "expert:functions"))
    model.base_model.add_weighted_adapter(["sums", "functions"], [0.7, 0.3], "mixed")
    model.set_adapter("mixed")
    z = {name: 0.7 * adapter_of(project, "expert:sums").z(name)[0] + 0.3 * other.z(name)[0] for name in other.experts}
    close(logits(model), logits(tuned(plain_model(project), single(z, "mixed"))))
    mixed = logits(model)
    close(logits(model.merge_and_unload()), mixed)
    with pytest.raises(UserError, match="expected adapters out of"):
        model.base_model.add_weighted_adapter(["summs"], [1.0], "x")


def edited(project, kind="loreft"):
    return get_peft_model(plain_model(project), CONFIGS[kind]())


def test_edits_are_no_weights_and_no_copies(project):
    model = edited(project)
    for act in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(UserError, match="keep the adapter beside the model"):
            act()
    with pytest.raises(UserError, match="expected no copy"):
        copy.deepcopy(model)


REFUSED = {
    "no word on the prompt": ({}, "where the prompt ends"),
    "no prompt": ({"labels": IDS}, "got none of it"),
    "two talks in a row": ({"labels": torch.tensor([[-100, -100, 7, 8, -100, 10]])}, "one prompt before one answer"),
    "a mask of attention": (
        {"labels": IDS, "attention_mask": torch.ones(1, 1, 6, 6)},
        r"attention_mask of \(batch, seq\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_pass_whose_prompt_cannot_be_told_is_refused(project, case):
    given, says = REFUSED[case]
    with pytest.raises(UserError, match=says):
        edited(project).train()(input_ids=IDS, **given)


def test_the_prompt_may_be_told_in_three_ways(project, exported):
    """By labels, by a mask, and by how many logits are kept; what stands behind it is not edited."""
    model = PeftModel.from_pretrained(plain_model(project), exported("loreft"))
    prompt = torch.tensor([[True, True, True, True, False, False]])
    labels = IDS.masked_fill(prompt, -100)
    found = logits(model, labels=labels)
    assert torch.equal(logits(model, prompt_mask=prompt), found)
    assert torch.equal(logits(model, logits_to_keep=3), found[:, -3:])
    assert not torch.equal(logits(model), found)


def test_the_router_s_costs_join_the_loss_and_need_the_skills(project, tmp_path):
    config = selfadapt.CsReftConfig(
        task_type="CAUSAL_LM", positions="f2+l2", skills=["a", "b"], router={"supervision": 0.5, "penalty_weight": 0.1}
    )
    model = get_peft_model(plain_model(project), config).train()
    given = {"input_ids": IDS, "labels": torch.tensor([[-100, -100, -100, -100, 9, 10]])}
    with pytest.raises(UserError, match="expected 'skills'"):
        model(**given)
    free = model.eval()(**given).loss.item()  # an evaluation has no costs
    dear = model.train()(**given, skills=torch.tensor([1])).loss.item()
    assert dear > free + 0.1
    assert model.base_model.model.model.reft.gates["default"].shape == (1, 2)
    with pytest.raises(UserError, match="takes the loss of the model's output"):
        model(input_ids=IDS, prompt_mask=torch.ones_like(IDS), skills=torch.tensor([1]))
    half = model(**given, skills=torch.tensor([1]), num_items_in_batch=torch.tensor(4)).loss.item()
    assert half == pytest.approx(dear / 2, rel=1e-4)  # two of the step's four tokens: half of both losses


def test_edits_stay_float32_in_a_model_of_another_type(project):
    model = edited(project).to(torch.bfloat16)
    assert {parameter.dtype for name, parameter in model.named_parameters() if "reft_edits" in name} == {torch.float32}
    model.train()(input_ids=IDS, labels=torch.tensor([[-100, -100, -100, -100, 9, 10]])).loss.backward()


def test_a_folder_of_another_base_model_is_refused(project, assistant, tmp_path):
    get_peft_model(tiny_model(layers=3), selfadapt.LoReftConfig(task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="belongs to another base model"):
        assistant.generate(PROMPT, f"expert:{tmp_path}")
