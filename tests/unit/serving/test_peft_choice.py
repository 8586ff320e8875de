"""SVF inside peft computes, saves, loads, merges and trains as it should."""

import pytest
import torch
from peft import PeftModel

from pipeline.core.errors import UserError
from pipeline.model.forward.base import load_base
from pipeline.serving.peft import svf_config, svf_model
from tests.project import make_project
from tests.tiny import MODULES


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture(scope="module")
def expert(project):
    return project.read_svf(project.experts["svf-sums-0"])


@pytest.fixture
def base(project):
    return load_base(project.model, project.compute())


IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def expected(project, expert, base) -> torch.Tensor:
    with expert.attached(base.model, project.factors):
        return logits(base.model)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_an_expert_in_peft_computes_what_it_computes_here(project, expert, base):
    plain, wanted = logits(base.model), expected(project, expert, base)
    tuned = svf_model(base.model, project.factors, MODULES, expert)
    close(logits(tuned), wanted)
    with tuned.disable_adapter():
        close(logits(tuned), plain)
    close(logits(tuned.merge_and_unload()), wanted)


def test_it_starts_as_the_base_model(project, base):
    plain = logits(base.model)
    assert torch.equal(logits(svf_model(base.model, project.factors, MODULES)), plain)


def test_what_peft_saves_is_z_alone_and_loads_again(project, expert, base, tmp_path):
    wanted = expected(project, expert, base)
    svf_model(base.model, project.factors, MODULES, expert).save_pretrained(tmp_path)
    size = sum(z.numel() for z in expert.experts.values())
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 4 * size + 4000
    fresh = load_base(project.model, project.compute()).model
    close(logits(PeftModel.from_pretrained(fresh, tmp_path, config=svf_config(project.factors, MODULES))), wanted)


def test_only_z_is_trained(project, base):
    tuned = svf_model(base.model, project.factors, ["q_proj", "v_proj"])
    trained = [name for name, parameter in tuned.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".lora_z." in name for name in trained)
    before = float(tuned(input_ids=IDS, labels=IDS).loss.detach())
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        tuned(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    assert float(tuned(input_ids=IDS, labels=IDS).loss.detach()) < before


def test_an_expert_of_other_modules_is_refused(project, expert, base):
    with pytest.raises(UserError, match="expected modules that cover the expert's"):
        svf_model(base.model, project.factors, ["q_proj"], expert)
