"""What is taken away loads elsewhere and computes the same."""

import json
import re
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.core.errors import UserError
from pipeline.model.forward.base import load_base
from pipeline.serving import export
from pipeline.serving.assistant import Assistant
from pipeline.serving.exported import read_exported
from tests.project import make_project, score_cells

PROMPT = "What is 12 + 30?"
MERGEABLE = ["base", "expert:sums", "lora:sums", "mixture:few_shot-groceries", "mixture:MIXED"]
EXPERTS = ["expert:sums", "lora:sums", "mixture:few_shot-groceries", "loreft", "csreft"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = make_project(tmp_path_factory.mktemp("made") / "project")
    score_cells(made)
    (made.folder / "mixed.json").write_text('{"experts": {"sums": 0.7, "functions": [0.1, 0.4]}, "mix": "delta"}')
    return made


@pytest.fixture(scope="module")
def assistant(project):
    return Assistant(project)


def named(strategy, project):
    return strategy.replace("MIXED", str(project.folder / "mixed.json"))


@pytest.mark.parametrize("strategy", MERGEABLE)
def test_a_merged_checkpoint_has_the_same_logits_in_plain_transformers(project, assistant, tmp_path, strategy):
    folder = tmp_path / "merged"
    export.merged(project, named(strategy, project), folder)
    code = (
        "import sys, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained('merged', dtype=torch.float32).eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained('merged')\n"
        f"turns = [{{'role': 'user', 'content': {PROMPT!r}}}]\n"
        "ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)\n"
        "torch.save((ids, model(input_ids=torch.tensor([ids])).logits[0].detach()), 'logits.pt')\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('pipeline', 'selfadapt')]\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    ids, logits = torch.load(tmp_path / "logits.pt")
    base = load_base(project.model, project.compute())
    way = assistant.strategy(named(strategy, project))
    assert ids == base.prompt_ids([{"role": "user", "content": PROMPT}])
    with torch.no_grad():
        plain = base.model(input_ids=torch.tensor([ids])).logits[0]
        with export._in_the_weights(base.model, project.factors, way):
            expected = base.model(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert strategy == "base" or (expected - plain).abs().max() > 0.1


def test_a_merged_checkpoint_answers_as_the_engine_does(project, assistant, tmp_path):
    export.merged(project, "mixture:few_shot-groceries", tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    turns = [{"role": "user", "content": PROMPT}]
    ids = torch.tensor([tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)])
    found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0]
    answer = assistant.generate(PROMPT, "mixture:few_shot-groceries", max_new_tokens=12)
    assert tokenizer.decode(found[ids.shape[1] :], skip_special_tokens=True) == answer.text


def test_a_merged_checkpoint_can_be_bfloat16(project, tmp_path):
    export.merged(project, "expert:sums", tmp_path / "merged", "bfloat16")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.bfloat16


@pytest.mark.parametrize("strategy", EXPERTS)
def test_an_exported_expert_loads_back_to_the_bit_and_answers_the_same(project, assistant, tmp_path, strategy):
    folder = tmp_path / "expert"
    export.expert(project, strategy, folder)
    original, _ = project.read(project.file_of(strategy))
    found, wanted = read_exported(folder, project.model)[0].state(), original.state()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    back = assistant.generate(PROMPT, f"expert:{folder}", max_new_tokens=9)
    assert back.text == assistant.generate(PROMPT, strategy, max_new_tokens=9).text
    assert {path.name for path in folder.iterdir()} >= {"expert.safetensors", "config.json", "README.md"}


def test_the_card_says_what_it_was_trained_on_and_what_was_measured(project, tmp_path):
    from huggingface_hub import ModelCard

    export.expert(project, "expert:sums", tmp_path / "expert")
    card = ModelCard.load(tmp_path / "expert" / "README.md")
    assert re.search(r"\| sums \| 50\.0 \[\d\d\.\d, \d\d\.\d\] \| 20\.0 \| 20 \|", card.text)
    assert "- `sums` (math): 24 prompts, seed 1" in card.text
    assert card.data.tags == ["selfadapt", "svf"]
    export.expert(project, "expert:kinds", tmp_path / "other")
    assert "No cell that it answered was scored." in (tmp_path / "other" / "README.md").read_text()


def test_a_push_can_be_tried_without_a_network(project, tmp_path, monkeypatch):
    import huggingface_hub

    export.expert(project, "expert:sums", tmp_path / "expert")
    monkeypatch.setattr(huggingface_hub, "HfApi", None)
    files = export.push(tmp_path / "expert", "someone/sums", dry_run=True)
    assert {name for name, size in files if size > 0} == {"README.md", "config.json", "expert.safetensors"}
    for wrong in ("a/b/c", "some one/x", ""):
        with pytest.raises(UserError, match="expected a repository as OWNER/NAME"):
            export.push(tmp_path / "expert", wrong, dry_run=True)


def test_a_push_without_a_network_is_one_sentence(project, tmp_path):
    export.expert(project, "expert:sums", tmp_path / "expert")
    with pytest.raises(UserError, match="the hub could not be used") as raised:
        export.push(tmp_path / "expert", "someone/sums", dry_run=False)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("strategy", ["csreft", "loreft", "prompt", "classifier"])
def test_what_is_no_weight_is_not_merged(project, tmp_path, strategy):
    with pytest.raises(UserError, match="expected (an expert that can be written into weights|one expert or mixture)"):
        export.merged(project, strategy, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(project, tmp_path):
    (tmp_path / "mine").write_text("x")
    for write in (export.merged, export.expert):
        with pytest.raises(UserError, match="to be new or empty"):
            write(project, "expert:sums", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_expert_of_another_base_model_is_refused(project, tmp_path):
    export.expert(project, "expert:sums", tmp_path / "expert")
    file = tmp_path / "expert" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_sha256": "0"}))
    with pytest.raises(UserError, match="got one for another"):
        read_exported(tmp_path / "expert", project.model)
