"""What the commands print: the answer to standard output, all else to standard error."""

import io
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save

from pipeline.core.errors import UserError
from pipeline.serving.assistant import Assistant
from pipeline.serving.describe import changes
from selfadapt import cli
from tests.project import make_project, score_cells


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = make_project(tmp_path_factory.mktemp("made") / "project")
    score_cells(made)
    return made


LATIN = b"caf\xe9?".decode(errors="surrogateescape")  # as Python reads bytes that are no UTF-8


@pytest.fixture(scope="module")
def assistant(project):
    return Assistant(project)


@pytest.fixture
def call(project, monkeypatch, capsys):
    def call(*words: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.chdir(project.folder)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["selfadapt", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said, code = capsys.readouterr(), ended.value.code
        if isinstance(code, str):  # Python prints it, and exits with 1
            return 1, said.out, said.err + code
        return int(code or 0), said.out, said.err

    return call


def test_generate_prints_the_answer_alone_and_tells_the_decision_and_the_cost(call, assistant):
    code, out, err = call("generate", "def", "-s", "classifier", "-n", "7")
    answer = assistant.generate("def", "classifier", max_new_tokens=7)
    assert code == 0
    assert out == answer.text + "\n"
    assert answer.decision.chosen in err
    assert f"; {answer.decision.tokens} tokens" in err
    assert f"read {answer.prompt_tokens} tokens, wrote 7" in err


def test_generate_reads_standard_input(call, assistant):
    _, out, _ = call("generate", "-", "-n", "7", typed="def")
    assert out == assistant.generate("def", max_new_tokens=7).text + "\n"


def test_a_prompt_of_another_encoding_is_one_sentence(assistant):
    with pytest.raises(UserError, match="expected turn 1 as text in UTF-8, got bytes of another encoding in 'caf"):
        assistant.generate(LATIN)


def test_chat_remembers_the_talk_and_takes_its_commands(call, assistant):
    typed = (
        "def\n/strategy expert:sums\nand now?\n/nonsense\n/strategy x\n\n/new\nand now?\n/strategies\n/quit\nnever\n"
    )
    code, out, err = call("chat", "-n", "5", typed=typed)
    first = assistant.generate("def", max_new_tokens=5).text
    talk = [{"role": "user", "content": "def"}, {"role": "assistant", "content": first}]
    second = assistant.generate([*talk, {"role": "user", "content": "and now?"}], "expert:sums", max_new_tokens=5).text
    third = assistant.generate("and now?", "expert:sums", max_new_tokens=5).text
    assert code == 0
    assert out == "\n".join([first, second, third, *assistant.strategies(), ""])
    assert "error: expected /strategy NAME" in err
    assert "error: expected a strategy, got 'x'" in err


def test_chat_ends_with_the_input(call):
    assert call("chat", typed="")[0] == 0


def test_compare_shows_every_strategy_beside_its_answer(call, assistant):
    code, out, _ = call("compare", "def", "-n", "4")
    assert code == 0
    for name in assistant.strategies():
        assert name in out
    code, out, _ = call("compare", "def", "-n", "4", "-s", "base", "-s", "expert:sums")
    assert "expert:sums" in out
    assert "csreft" not in out


def test_who_only_asks_for_names_waits_for_no_library_of_tensors(project):
    code = (
        "import sys; from typer.testing import CliRunner; from selfadapt.cli import app\n"
        f"print(CliRunner().invoke(app, ['experts', 'list', '-C', {str(project.folder)!r}]).exit_code)\n"
        "print([name for name in ('torch', 'transformers', 'prefect', 'dvc') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["0", "[]"]


def test_a_file_that_is_no_adapter_is_one_sentence_in_the_list(call, tmp_path):
    made = make_project(tmp_path / "project")
    path = next(iter(made.experts.values()))
    for bytes_, got in ((b"{}", "got"), (save({"a": np.zeros(1)}), "got a safetensors file that does not say")):
        path.write_bytes(bytes_)
        code, _, err = call("experts", "list", "-C", str(made.folder))
        assert code == 1 and "error: expected" in err and path.name in err and got in err


def test_experts_are_listed_with_how_each_came_about_and_what_it_scored(call, project):
    code, out, _ = call("experts", "list")
    assert code == 0
    for name in (*project.experts, *project.loras, *project.adapters, *project.mixtures):
        assert name in out
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if ":" in line}
    assert rows["expert:svf-sums-0"].startswith("trained on sums 3 sums 50.0 [")
    assert rows["expert:svf-sums-0"].endswith("] 20.0")
    assert rows["expert:svf-kinds-0"] == "trained on kinds 3 not scored"
    assert rows["mixture:few_shot-groceries-0"].startswith("mixed for groceries, layer by layer 3 groceries 75.0 [")
    best = rows["lora:best_lora-groceries-0"]
    assert best.startswith("is lora-functions-0, the best on prompts of groceries 3 groceries 25.0 [")


def test_the_intervals_are_the_report_s(project):
    from pipeline.evaluation.intervals import Resampling, estimate
    from pipeline.serving.measured import measured

    (score,) = measured(project, project.file_of("expert:sums"))
    settings = project.params["report"]
    expected = estimate([np.arange(20) < 10], Resampling(resamples=settings["resamples"], seed=settings["seed"]))
    assert (score.mean, score.low, score.high, score.n) == tuple(expected)
    assert score.base == 0.2


def test_an_expert_s_changes_are_shown_per_layer_and_kind_of_matrix(call, project):
    code, out, _ = call("experts", "show", "sums", "--top", "2")
    changed = changes(project.read_svf(project.experts["svf-sums-0"]), project.factors, 2)
    kinds = list(dict.fromkeys(row["module"] for row in changed))
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["layer", *kinds] in lines
    for layer in (0, 1):
        assert [str(layer), *(f"{row['change']:.4f}" for row in changed if row["layer"] == layer)] in lines
    most = max(changed, key=lambda row: row["change"])
    assert f"layer {most['layer']}, {most['module']}: {most['change']:.4f}; " in out
    assert out.count("most changed components: ") == 2
    assert f"--all' shows all {len(changed)}" in out


def test_every_matrix_is_shown_where_it_is_asked_for(call, project):
    code, out, _ = call("experts", "show", "sums", "--top", "1", "--all")
    adapter = project.read_svf(project.experts["svf-sums-0"])
    name = "model.layers.1.mlp.up_proj"
    z, sigma = adapter.z(name)[0], project.factors[name][1]
    moved = (sigma * (z - 1)).abs()
    row = next(line for line in out.splitlines() if line.split()[:2] == ["1", "up_proj"])
    assert code == 0
    assert f"{float(moved.norm() / sigma.norm()):.4f}" in row
    assert f"σ{int(moved.argmax())} ×{float(z[moved.argmax()]):.3f}" in row
    for other in ("lora:sums", "csreft", "loreft", "mixture:few_shot-groceries", "expert:svf-kinds-0"):
        assert call("experts", "show", other)[0] == 0


def test_exporting_says_what_a_push_would_upload(call, tmp_path):
    words = ("export", "expert:sums", str(tmp_path / "out"), "--as", "expert", "--push-to", "me/sums", "--dry-run")
    code, out, _ = call(*words)
    assert code == 0
    assert "would upload expert.safetensors (" in out
