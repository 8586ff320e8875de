"""TRL's trainers take SVF, LoReFT and CS-ReFT as they take a LoRA: on answers, and by reward.

Needs TRL: ``pip install 'selfadapt[trl]'``.
"""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

import selfadapt
from pipeline.core.errors import UserError
from pipeline.serving.peft.folder import read
from tests.project import make_project

trl = pytest.importorskip("trl", reason="needs TRL: pip install 'selfadapt[trl]'")

KINDS = {
    "svf": lambda **more: selfadapt.SvfConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "up_proj"]),
    "loreft": lambda **more: selfadapt.LoReftConfig(task_type="CAUSAL_LM", positions="f1+l2"),
    "csreft": lambda **more: selfadapt.CsReftConfig(
        task_type="CAUSAL_LM", positions="f1+l2", skills=["a", "b"], **more
    ),
}
QUIET = {"report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "logging_steps": 1}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("made") / "project")


def parts(project):
    model = AutoModelForCausalLM.from_pretrained(project.model, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(project.model)


def by_answers(project, folder, config):
    model, tokenizer = parts(project)
    rows = [{"prompt": f"What is {n} + 12?", "completion": " Anna"} for n in range(8)]
    arguments = trl.SFTConfig(
        output_dir=str(folder), max_steps=6, per_device_train_batch_size=4, learning_rate=0.02, bf16=False, **QUIET
    )
    return trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=config,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_training_on_answers(project, kind, tmp_path):
    trainer = by_answers(project, tmp_path / "run", KINDS[kind]())
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
    trainer.save_model(str(tmp_path / "saved"))
    state = read(tmp_path / "saved").state()
    if kind != "svf":
        rotation = state["rotation"]
        unit = torch.eye(rotation.shape[2]).expand(*rotation.shape[:2], -1, -1)
        torch.testing.assert_close(rotation @ rotation.mT, unit, atol=1e-5, rtol=0)


def test_a_cost_that_a_trainer_would_leave_out_is_refused(project, tmp_path):
    trainer = by_answers(project, tmp_path, KINDS["csreft"](router={"penalty_weight": 0.01}))
    with pytest.raises(UserError, match="takes the loss of the model's output"):
        trainer.train()


@pytest.mark.parametrize("kind", KINDS)
def test_training_by_reward(project, kind, tmp_path):
    model, tokenizer = parts(project)
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=6,
        learning_rate=0.02,
        bf16=False,
        **QUIET,
    )
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [float(len(text) % 3) for text in completions],
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": f"What is {n} + 12?"} for n in range(4)]),
        processing_class=tokenizer,
        peft_config=KINDS[kind](),
    )
    parameters = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters]
    trainer.train()
    assert any(not torch.equal(parameter, old) for parameter, old in zip(parameters, before, strict=True))
