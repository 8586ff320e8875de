"""Bad input of every kind, at every entry: one sentence, an exit code, nothing written, no traceback."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import httpx
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from pipeline.core import model_folder
from pipeline.core.artifacts import read_tensors, write_json, write_jsonl, write_tensors
from pipeline.core.code import Code
from pipeline.core.errors import UserError
from pipeline.core.types import Example, Score
from pipeline.flow import one as one_stage
from pipeline.flow.stages import resolve
from pipeline.serving.assistant import Assistant
from pipeline.serving.http.server import Server
from selfadapt import cli
from tests.project import ROOT, make_project
from tests.sentences import lacks
from tests.serving import LIMITS, REFUSED, served

ASK = ["generate", "What is 12 + 30?", "-n", "3"]


@dataclass(frozen=True)
class Case:
    """What is wrong with the project, what is then called, and words of the sentence that must come of it.

    call: words of ``selfadapt``, or of a stage, by its name. code: 2 is what the command line's own grammar says.
    """

    spoil: Callable[[Path], None]
    call: list[str]
    says: str
    code: int = 1


def well(folder: Path) -> None:
    """Nothing is wrong with the project."""


def setting(place: str, value: object) -> Callable[[Path], None]:
    """params.yaml with another value; None takes the setting away."""

    def spoil(folder: Path) -> None:
        params = yaml.safe_load((folder / "params.yaml").read_text())
        *parents, key = place.split(".")
        inner = params
        for parent in parents:
            inner = inner[parent]
        if value is None:
            del inner[key]
        else:
            inner[key] = value
        (folder / "params.yaml").write_text(yaml.safe_dump(params))

    return spoil


def text(name: str, content: str | bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def gone(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def cut(name: str, keep: int = 300) -> Callable[[Path], None]:
    """The first bytes of a file alone: what a broken download leaves."""
    return lambda folder: text(name, (folder / name).read_bytes()[:keep])(folder)


def tensors(name: str, change: Callable[[dict], None], meta: Callable[[dict], None] = lambda meta: None):
    """A safetensors file with other tensors."""

    def spoil(folder: Path) -> None:
        held, about = read_tensors(folder / name)
        held = {key: tensor.clone() for key, tensor in held.items()}
        change(held)
        meta(about)
        write_tensors(folder / name, held, about)

    return spoil


def nan(held: dict) -> None:
    next(tensor for key, tensor in held.items() if key != "mixture.coefficients").view(-1)[0] = torch.nan


def weights_of_nan(folder: Path) -> None:
    path = folder / MODEL / "model.safetensors"
    held = load_file(path)
    held["model.norm.weight"] = held["model.norm.weight"] * torch.nan
    save_file(held, path, metadata={"format": "pt"})


def shorter(held: dict) -> None:
    held |= {key: tensor[..., :-1].clone() for key, tensor in held.items() if key.startswith("z.")}


def emptied(held: dict) -> None:
    held.clear()


def pipe(name: str) -> Callable[[Path], None]:
    """A pipe in a file's place, that nobody writes to."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def config(**changes: object) -> Callable[[Path], None]:
    """The model's configuration with other values."""

    def spoil(folder: Path) -> None:
        path = folder / MODEL / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


SUMS = "artifacts/experts/svf-sums-0.safetensors"
LORA = "artifacts/experts/lora-sums-0.safetensors"
FOUND = "artifacts/adapted/few_shot-groceries-0.safetensors"
MODEL = "artifacts/base/model"
FACTORS = "artifacts/svd/base.safetensors"
TRAIN = "data/tasks/sums/train.jsonl"
ASK_SUMS = [*ASK, "-s", "expert:sums"]

PROFILE = (ROOT / "pipeline/profiles/tiny.yaml").read_text()

PARAMS = {
    "no settings": Case(gone("params.yaml"), ASK, "expected params.yaml in"),
    "settings that are no YAML": Case(text("params.yaml", "a: ["), ASK, "expected YAML in"),
    "settings in bytes": Case(text("params.yaml", b"\xff\xfe\x00"), ASK, "expected YAML in"),
    "settings that are a list": Case(text("params.yaml", "- a"), ASK, "expected a mapping of sections"),
    "no plan": Case(gone("plan.yaml"), ASK, "expected plan.yaml in"),
    "a plan that is no YAML": Case(text("plan.yaml", "plan: ["), ASK, "expected YAML in plan.yaml"),
    "a plan without its stages": Case(text("plan.yaml", "stages: {}"), ASK, "expected a plan in plan.yaml"),
    "a plan of other things": Case(
        text("plan.yaml", "plan: {train_svf: {a: 1}}"), ASK, "as 'selfadapt plan' writes it"
    ),
    "no graph": Case(gone("dvc.yaml"), ["plan"], "expected the graph in dvc.yaml"),
    "a graph that is no YAML": Case(
        text("dvc.yaml", "vars: [plan.yaml]\nstages: ["), ["plan"], "expected a graph that DVC can resolve"
    ),
    "an unknown setting": Case(setting("compute.thread", 2), ["factorize@base"], "did you mean 'threads'?"),
    "a missing setting": Case(setting("compute.threads", None), ["factorize@base"], "'compute.threads' is missing"),
    "a word for a number": Case(
        setting("compute.threads", "two"), ["factorize@base"], "'compute.threads' does not fit"
    ),
    "a fraction of a thread": Case(
        setting("compute.threads", 0.5), ["factorize@base"], "'compute.threads' does not fit"
    ),
    "no threads": Case(setting("compute.threads", 0), ["factorize@base"], "'compute.threads' does not fit"),
    "no section": Case(setting("few_shot", None), ["adapt@few_shot-groceries-0"], "expected 'few_shot'"),
    "an unknown dtype": Case(setting("compute.dtype", "float8"), ["factorize@base"], "'compute.dtype' does not fit"),
    "an unknown device": Case(setting("compute.device", "tpu"), ["factorize@base"], "'compute.device' does not fit"),
    "a module that is not there": Case(
        setting("svf.modules", ["w_proj"]), ["factorize@base"], "has no linear module w_proj"
    ),
    "no modules": Case(setting("svf.modules", []), ["factorize@base"], "'svf.modules' does not fit"),
    "more elites than candidates": Case(
        setting("few_shot.elites", 9), ["adapt@few_shot-groceries-0"], "expected 'elites' in few_shot"
    ),
    "an unknown configuration": Case(
        setting("few_shot.configurations", ["free"]),
        ["adapt@few_shot-groceries-0"],
        "expected 'configurations' in few_shot",
    ),
    "positions of no token": Case(
        setting("reft.adapter.positions", "x5"), ["train_skills@loreft-0"], "expected positions such as"
    ),
    "a layer that is not there": Case(
        setting("reft.adapter.layers", [7]), ["train_skills@loreft-0"], "expected layers from 0 to 1"
    ),
    "a rank beyond the hidden size": Case(
        setting("reft.adapter.rank", 65), ["train_skills@loreft-0"], "orthonormal directions"
    ),
    "a router behind the edits": Case(
        setting("csreft.adapter.router.layer", 1), ["train_csreft@csreft-0"], "expected csreft.adapter.router.layer"
    ),
    "an unknown advantage": Case(
        setting("reinforce.advantage", "ppo"), ["train_svf@sums-0"], "'reinforce.advantage' does not fit"
    ),
    "a question without its prompt": Case(
        setting("dispatch.question", "Which?"), [*ASK, "-s", "prompt"], "expected '{prompt}' in dispatch.question"
    ),
    "more examples than there are": Case(
        setting("tasks.sums.data.options", {"smallest": 10, "largest": 10}), ["prepare@sums"], "different examples"
    ),
    "an unknown option of a task": Case(
        setting("tasks.sums.data.options.biggest", 12), ["prepare@sums"], "options.biggest' is not a known"
    ),
    "an unknown task in a table": Case(setting("tables.table1.tasks", ["x"]), ["plan"], "names the task 'x', which"),
    "an unknown row in a table": Case(setting("tables.table1.rows", ["x"]), ["plan"], "names the row 'x', which"),
    "a row made by no stage": Case(setting("rows.svf.from", "x"), ["plan"], "'rows.svf.from' does not fit"),
    "a name that no file can have": Case(setting("profile", ""), ["plan"], "expected names of letters, digits"),
    "settings that are like themselves": Case(
        setting("reft.adapter", {"like": "reft.adapter"}), ["train_skills@loreft-0"], "'reft.adapter' is like itself"
    ),
}

PARAMS |= {
    f"settings with {kind}": Case(text("params.yaml", f"{content}\n{PROFILE}"), ASK, "expected ")
    for kind, content in {
        "a key twice": "profile: x",
        "a set": "x: !!set {a}",
        "bytes": "x: !!binary aGk=",
        "an anchor in itself": "x: &x [*x]",
        "a number of 400 digits": f"x: 1{'0' * 400}",
        "a number of 5000 digits": f"x: 1{'0' * 5000}",
        "no number": "x: .nan",
        "lists without end": "x: " + "[" * 20000,
        "a truth value as a key": "on: 1",
    }.items()
} | {
    "a date for a number": Case(setting("compute.threads", date(2001, 1, 1)), ["factorize@base"], "compute.threads"),
    "settings in a pipe": Case(pipe("params.yaml"), ASK, "expected params.yaml in"),
}

COMMANDS = {
    "an unknown command": Case(well, ["generat"], "No such command 'generat'", 2),
    "an unknown option": Case(well, [*ASK, "--stratgy", "base"], "No such option: --stratgy", 2),
    "no prompt at all": Case(well, ["generate"], "Missing argument 'prompt'", 2),
    "a number in words": Case(well, ["generate", "x", "-n", "many"], "Invalid value for '--max-new-tokens'", 2),
    "a port beyond the last": Case(well, ["serve", "--port", "70000"], "Invalid value for '--port'", 2),
    "an unknown profile": Case(well, ["profile", "use", "lptop"], "did you mean 'laptop'?"),
    "a folder without a project": Case(well, [*ASK, "-C", "data"], "expected params.yaml in"),
    "an unknown strategy": Case(well, [*ASK, "-s", "clasifier"], "did you mean 'classifier'?"),
    "a strategy without its name": Case(well, [*ASK, "-s", "expert:"], "expected a strategy, got 'expert:'"),
    "an unknown expert": Case(well, [*ASK, "-s", "expert:svf-smus-0"], "did you mean 'svf-sums-0'?"),
    "an unknown LoRA expert": Case(well, [*ASK, "-s", "lora:x"], "expected the name of an expert (lora), got 'x'"),
    "an empty prompt": Case(well, ["generate", " "], "expected a prompt, got an empty one"),
    "a prompt beyond the context": Case(well, ["generate", "12 + " * 900], "expected at most 512 tokens"),
    "an answer of no token": Case(well, ["generate", "x", "-n", "0"], "expected at least 1 new token, got 0"),
    "a temperature below 0": Case(well, ["generate", "x", "--temperature=-1"], "expected a temperature from 0 to 100"),
    "a temperature that is no number": Case(well, ["generate", "x", "-t", "nan"], "expected a temperature from 0"),
    "a mixture that is not there": Case(well, [*ASK, "-s", "mixture:x.json"], "expected the file x.json"),
    "a mixture in another format": Case(well, [*ASK, "-s", "mixture:params.yaml"], "ends in .safetensors or .json"),
    "a mixture that is no JSON": Case(text("m.json", "{"), [*ASK, "-s", "mixture:m.json"], "expected JSON in m.json"),
    "a mixture that is a list": Case(text("m.json", "[1]"), [*ASK, "-s", "mixture:m.json"], 'expected {"experts"'),
    "a mixture with NaN": Case(
        text("m.json", '{"experts": {"sums": NaN}}'), [*ASK, "-s", "mixture:m.json"], "from -1000 to 1000"
    ),
    "a mixture of LoRA": Case(well, [*ASK, "-s", f"mixture:{LORA}"], "expected SVF experts in"),
    "comparing with an unknown strategy": Case(well, ["compare", "x", "-s", "x"], "expected a strategy, got 'x'"),
    "showing what is no expert": Case(well, ["experts", "show", "x"], "expected a strategy, got 'x'"),
    "merging what is no weight": Case(well, ["export", "csreft", "out"], "export it with --as expert"),
    "merging a decision": Case(well, ["export", "prompt", "out"], "which decides for every prompt"),
    "exporting into a full folder": Case(well, ["export", "expert:sums", "data"], "expected data to be new or empty"),
    "exporting an unknown dtype": Case(well, ["export", "base", "out", "--dtype", "int3"], "expected --dtype"),
    "a dry run of nothing": Case(well, ["export", "base", "out", "--dry-run"], "together with --push-to"),
    "a repository that is none": Case(
        well, ["export", "base", "out", "--push-to", "a/b/c", "--dry-run"], "expected a repository as OWNER/NAME"
    ),
    "exporting into a file": Case(text("file", "x"), ["export", "base", "file/out"], "the system refused (File exists"),
    "an address of another machine": Case(well, ["serve", "--host", "192.0.2.1"], "expected to listen on 192.0.2.1"),
    "an unknown stage": Case(well, ["stage:factorise"], "expected a stage, got 'factorise'"),
}

# The base model's folder.
MODELS = {
    "no model": Case(gone(MODEL), ASK, "expected the base model in"),
    "a model without its configuration": Case(gone(f"{MODEL}/config.json"), ASK, "has no config.json"),
    "a configuration that is no JSON": Case(text(f"{MODEL}/config.json", "{"), ASK, "config.json"),
    "weights cut short": Case(cut(f"{MODEL}/model.safetensors"), ASK, "expected weights as safetensors in"),
    "no weights": Case(gone(f"{MODEL}/model.safetensors"), ASK, MODEL),
    "no tokenizer": Case(gone(f"{MODEL}/tokenizer.json"), ASK, "tokenizer"),
    **{
        f"a configuration with {kind}": Case(config(**changes), ASK, MODEL)
        for kind, changes in {
            "a billion layers": {"num_hidden_layers": 10**9},
            "no layers": {"num_hidden_layers": 0},
            "layers in words": {"num_hidden_layers": "two"},
            "a negative size": {"hidden_size": -64},
            "no size": {"hidden_size": 0},
            "a vocabulary of 10^15": {"vocab_size": 10**15},
            "a list for a size": {"hidden_size": [64]},
            "an unknown kind": {"model_type": "oracle"},
            "no heads": {"num_attention_heads": 0},
        }.items()
    },
    "a configuration nested without end": Case(text(f"{MODEL}/config.json", "[" * 100000), ASK, MODEL),
    "a tokenizer of another form": Case(text(f"{MODEL}/tokenizer.json", '{"a": 1}'), ASK, MODEL),
    "a tokenizer that is a list": Case(text(f"{MODEL}/tokenizer.json", "[]"), ASK, MODEL),
    "a tokenizer in bytes": Case(text(f"{MODEL}/tokenizer.json", b"\xff\x00"), ASK, MODEL),
    **{
        f"a chat template that {does}": Case(text(f"{MODEL}/chat_template.jinja", template), ASK, "chat template")
        for does, template in {
            "divides by zero": "{{ 1 // 0 }}",
            "asks for terabytes": "{{ 'x' * 10 ** 13 }}",
            "never ends": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "gives nothing": "{# nothing #}",
            "is no template": "{% for %}",
            "wants what is not there": "{{ messages[7].content.x.y }}",
            "refuses": "{{ raise_exception('no') }}",
        }.items()
    },
    "a model of NaN": Case(weights_of_nan, ASK, "expected numbers from the model, got NaN or infinity"),
}

# Factors, experts, LoRA, edits: files of tensors.
ADAPTERS = {
    "no factors": Case(gone(FACTORS), ASK_SUMS, FACTORS),
    "factors cut short": Case(cut(FACTORS), ASK_SUMS, "expected safetensors in"),
    "factors of nothing": Case(tensors(FACTORS, emptied), ASK_SUMS, "expected the decomposition of"),
    "no expert": Case(gone(SUMS), ASK_SUMS, "run 'dvc repro', which makes it"),
    "an expert of no bytes": Case(text(SUMS, b""), ASK_SUMS, "expected safetensors in"),
    "an expert cut short": Case(cut(SUMS), ASK_SUMS, "expected safetensors in"),
    "an expert in words": Case(text(SUMS, "{}" * 500), ASK_SUMS, "expected safetensors in"),
    "an expert with NaN": Case(tensors(SUMS, nan), ASK_SUMS, "NaN or infinity"),
    "an expert of another shape": Case(tensors(SUMS, shorter), ASK_SUMS, "another base model"),
    "an expert without its mixture": Case(
        tensors(SUMS, lambda held: held.pop("mixture.coefficients")), ASK_SUMS, "lacks some of it"
    ),
    "an expert of no kind": Case(
        tensors(SUMS, nan, lambda meta: meta.pop("kind")), ASK_SUMS, "got a safetensors file without one"
    ),
    "an expert of an unknown kind": Case(
        tensors(SUMS, nan, lambda meta: meta.update(kind="spell")), ASK_SUMS, "out of base, csreft"
    ),
    "LoRA with NaN": Case(tensors(LORA, nan), [*ASK, "-s", "lora:sums"], "NaN or infinity"),
    "LoRA without half of it": Case(
        tensors(LORA, lambda held: held.pop(next(key for key in held if "lora_B" in key))),
        [*ASK, "-s", "lora:sums"],
        "lacks some of it",
    ),
    "edits with NaN": Case(tensors("artifacts/skills/loreft-0.safetensors", nan), [*ASK, "-s", "loreft"], "NaN or inf"),
    "a mixture for fewer layers": Case(
        tensors(FOUND, lambda held: held.update({"mixture.coefficients": held["mixture.coefficients"][:1].clone()})),
        [*ASK, "-s", "mixture:few_shot-groceries-0"],
        "coefficients for 2 layers",
    ),
    "a folder that holds no expert": Case(well, [*ASK, "-s", f"expert:{MODEL}"], "expected an exported expert in"),
    "an expert in a pipe": Case(pipe(SUMS), ASK_SUMS, SUMS),
}

# Examples of a task.
ROWS = {
    "no examples": Case(gone(TRAIN), ["train_svf@sums-0"], f"expected the input {TRAIN}"),
    "an empty data set": Case(text(TRAIN, ""), ["train_svf@sums-0"], "expected training and validation examples"),
    "examples that are no JSON": Case(text(TRAIN, "{\n"), ["train_svf@sums-0"], f"expected JSON in line 1 of {TRAIN}"),
    "examples of another form": Case(text(TRAIN, '{"a": 1}\n'), ["train_svf@sums-0"], f"expected examples in {TRAIN}"),
    "examples in bytes": Case(text(TRAIN, b"\xff\xfe\n"), ["train_svf@sums-0"], TRAIN),
    "examples in a pipe": Case(pipe(TRAIN), ["train_svf@sums-0"], f"expected the input {TRAIN} to be a file"),
    "examples nested without end": Case(text(TRAIN, "[" * 100000), ["train_svf@sums-0"], f"in line 1 of {TRAIN}"),
    "examples that are numbers": Case(text(TRAIN, "7\n"), ["train_svf@sums-0"], f"an object on line 1 of {TRAIN}"),
}

# Coefficients in a file.
MIXTURES = {
    "a mixture nested without end": Case(text("m.json", "[" * 100000), [*ASK, "-s", "mixture:m.json"], "without end"),
    "a mixture of 5000 digits": Case(
        text("m.json", '{"experts": {"sums": 1' + "0" * 5000 + "}}"), [*ASK, "-s", "mixture:m.json"], "m.json"
    ),
    "a mixture of 400 digits": Case(
        text("m.json", '{"experts": {"sums": 1' + "0" * 400 + "}}"), [*ASK, "-s", "mixture:m.json"], "from -1000 to"
    ),
    "a mixture in a pipe": Case(pipe("m.json"), [*ASK, "-s", "mixture:m.json"], "m.json"),
}

KINDS = {
    "settings": PARAMS,
    "commands": COMMANDS,
    "model": MODELS,
    "adapters": ADAPTERS,
    "rows": ROWS,
    "mixtures": MIXTURES,
}
CASES = {f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    project = make_project(tmp_path_factory.mktemp("made") / "project")
    for task in project.params["tasks"]:
        rows = [
            {
                "id": f"{task}-{number}",
                "messages": [{"role": "user", "content": f"What is {number} + {number}?"}],
                "target": str(2 * number),
                "meta": {"answer": str(2 * number), "domain": "math", "task": task},
            }
            for number in range(8)
        ]
        for split in ("train", "validation", "test", "few_shot"):
            write_jsonl(project.folder / f"data/tasks/{task}/{split}.jsonl", rows)
    (project.folder / "data/raw").mkdir()  # what some tasks are prepared from
    shutil.copyfile(ROOT / "dvc.yaml", project.folder / "dvc.yaml")
    return project.folder


@pytest.fixture(scope="module")
def commands(made: Path) -> dict[str, list[str]]:
    """The arguments of every stage of the project, as DVC would call it."""
    return {stage.name: list(stage.command[4:]) for stage in resolve(made / "params.yaml", made / "dvc.yaml")}


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a good project, to be spoilt."""
    copy = tmp_path / "project"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("COLUMNS", "200")
    return copy


def holds(folder: Path) -> dict[str, bytes]:
    """Every file and its bytes, run records left out."""
    names = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in names if ".selfadapt" not in path.parts}


def called(words: list[str], commands: dict[str, list[str]], monkeypatch, capsys) -> tuple[int, str]:
    """The exit code of a call, and what it says on standard error."""
    monkeypatch.setattr(model_folder, "TEMPLATE_SECONDS", 1.0)
    monkeypatch.setattr(one_stage.signal, "signal", lambda *_: None)  # a stage's handlers are not for this process
    stages = {stage.partition(":")[2] or stage for stage in words[:1]}
    if words[0].startswith("stage:") or "@" in words[0]:
        name = stages.pop()
        command = commands.get(name, [])
        return one_stage.main([name, *command]), capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["selfadapt", *words])
    try:
        cli.main()
    except SystemExit as ended:
        said = capsys.readouterr().err
        return (1, f"{said}{ended.code}\n") if isinstance(ended.code, str) else (int(ended.code or 0), said)
    return 0, capsys.readouterr().err


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence_and_an_exit_code_and_writes_nothing(name, folder, commands, monkeypatch, capsys):
    case = CASES[name]
    case.spoil(folder)
    before = holds(folder)
    code, said = called(case.call, commands, monkeypatch, capsys)
    assert code == case.code, said
    assert "Traceback" not in said
    assert case.says in " ".join(said.replace("│", " ").split())
    if code == 1:
        (sentence,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert said.rstrip().endswith(sentence.rstrip()), said
        assert 30 < len(sentence) < 700
        assert not lacks(sentence.removeprefix("error: ")), sentence
    assert holds(folder) == before


@pytest.fixture(scope="module")
def url(made: Path):
    with served(Server(Assistant.open(made), LIMITS)) as url:
        yield url


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_request_is_one_sentence_and_its_status(url, case):
    body, status, words = REFUSED[case]
    answer = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert words in error["message"]
    assert not lacks(error["message"]), error["message"]
    assert "\n" not in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": NaN}'])
def test_what_is_no_request_is_400(url, body):
    answer = httpx.post(f"{url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].endswith("correct the request")


def test_a_batch_of_the_engine_too_large_for_the_memory_is_one_sentence(folder, commands, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.serving.engine.Cache.keep", lambda *_, **__: torch.empty(1 << 60, dtype=torch.uint8))
    code, said = called(ASK, commands, monkeypatch, capsys)
    assert code == 1
    assert said.startswith("error: expected memory for the prompts and answers")


@pytest.mark.parametrize("stage", ["generate@sums-svf-0", "train_svf@sums-0", "adapt@few_shot-groceries-0"])
def test_a_batch_of_a_stage_too_large_for_the_memory_is_one_sentence(stage, folder, commands, monkeypatch, capsys):
    task = "groceries" if "groceries" in stage else "sums"
    setting(f"tasks.{task}.decoding.max_new_tokens", 10**14)(folder)
    before = holds(folder)
    code, said = called([stage], commands, monkeypatch, capsys)
    assert code == 1, said
    assert said.splitlines()[-1].startswith("error: expected memory for the prompts and answers"), said
    assert "Traceback" not in said
    assert holds(folder) == before


def test_training_without_any_reward_ends_well_with_a_warning_and_an_expert_that_changes_nothing(
    folder, commands, monkeypatch, capsys
):
    def wrong(examples: list[Example], answers: list[str]) -> list[Score]:
        return [Score(example.id, 0.0, correct=False, parsed=None) for example in examples]

    monkeypatch.setattr("pipeline.tasks.sums.score", wrong)
    code, said = called(["train_svf@sums-0"], commands, monkeypatch, capsys)
    assert code == 0, said
    (warning,) = [line for line in said.splitlines() if line.startswith("warning: ")]
    assert "expected some answer to 'sums' to be rewarded, got none in 2 steps" in warning
    assert json.loads((folder / ".selfadapt/runs/train_svf@sums-0.json").read_text())["metrics"]["rewarded"] == 0
    held, _ = read_tensors(folder / SUMS)
    assert all(bool((tensor == 1).all()) for tensor in held.values())


# ---- the disk ----------------------------------------------------------------------------------------------------


def on_a_disk(script: str, folder: Path, options: str) -> subprocess.CompletedProcess:
    """A shell's script in a copy of the project on a file system of its own."""
    mount = folder.parent / "disk"
    mount.mkdir()
    prepare = f"mount -t tmpfs -o size=8m,mode=777 none {mount} && cp -r {folder} {mount}/project && cd {mount}/project"
    within = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f"{prepare} && mount -o remount,{options} {mount} && {script}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(within, capture_output=True, text=True, env=environment, timeout=120, check=False)


def mounts() -> bool:
    try:
        tried = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


WRITING = {
    "an export": '"$PYTHON" -m selfadapt.cli export base out',
    "a profile": '"$PYTHON" -m selfadapt.cli profile use laptop',
    "a stage": '"$PYTHON" -m pipeline.flow factorize --model artifacts/base/model --factors out',
}


@pytest.mark.skipif(not mounts(), reason="no file system can be mounted here")
@pytest.mark.parametrize("what", WRITING)
@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_a_disk_that_takes_nothing_is_one_sentence_and_keeps_what_is_there(folder, what, disk):
    fill = "dd if=/dev/zero of=../rest bs=4k 2> ../dd; " if disk == "full" else ""
    options = "size=8m" if disk == "full" else "ro"
    count = "find . | grep -v selfadapt | sort | md5sum; md5sum params.yaml"
    done = on_a_disk(f"{fill}{count}; {WRITING[what]}; echo code $?; {count}", folder, options)
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: expected to write")
    before, settings, *_, code, after, later = done.stdout.splitlines()
    assert code == "code 1"
    assert (before, settings) == (after, later)


def test_a_write_that_fails_at_its_end_leaves_the_old_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "rows.json"
    write_json(file, 1)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="expected to write .*rows.json, but the system refused .*No space left"):
        write_json(file, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]
    assert file.read_text() == "1\n"


# ---- two at once -------------------------------------------------------------------------------------------------


def test_two_runs_at_once_in_one_folder_spoil_nothing(folder):
    factors = folder / FACTORS
    before = {name: tensor.clone() for name, tensor in read_tensors(factors)[0].items()}
    for name in ("pipeline", "stages"):
        (folder / name).symlink_to(ROOT / name)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for unit, fingerprint in Code().units().items():
        text(f"artifacts/code/{unit}", fingerprint)(folder)

    def dvc(*words: str) -> subprocess.Popen:
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([sys.executable, "-m", "dvc", *words], cwd=folder, env=environment, **out)

    assert dvc("init", "--no-scm", "-q").wait(60) == 0
    both = [dvc("repro", "--single-item", "factorize@base") for _ in range(2)]
    said = [run.communicate(timeout=120)[0] for run in both]
    assert 0 in [run.returncode for run in both], said
    for run, words in zip(both, said, strict=True):
        assert run.returncode == 0 or "is busy" in words or "Unable to acquire lock" in words, words
    after = read_tensors(factors)[0]
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    again = dvc("repro", "--single-item", "factorize@base")
    assert "didn't change, skipping" in again.communicate(timeout=120)[0]
    assert not [path for path in factors.parent.iterdir() if path.name.startswith(".base")]


@pytest.mark.parametrize("words", [["profile", "list"], ["generate", "Δα?", "-n", "3"], ["experts", "list"]])
def test_what_a_terminal_cannot_write_is_written_otherwise(folder, words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    call = [sys.executable, "-m", "selfadapt.cli", *words]
    done = subprocess.run(call, capture_output=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.stdout.isascii()
