"""Win rates, what judges say, and what their word is worth."""

import gzip
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.core.artifacts import read_json, write_jsonl
from pipeline.core.errors import UserError
from pipeline.core.models import Compute
from pipeline.judging import preferred
from pipeline.scoring import preference
from pipeline.scoring.preference import judges
from pipeline.tables import MIRROR, mirror
from stages.judge import Judging, run

# model, its win rate and length-controlled win rate on AlpacaEval's own leaderboard
LEADERBOARD = [
    ("alpaca-7b", 26.4596, 26.29),
    ("claude", 91.5528, 76.83),
    ("gpt4", 95.2795, 86.51),
    ("llama-2-7b-chat-hf", 71.3665, 29.29),
    ("text_davinci_001", 15.1741, 20.57),
]


@pytest.mark.skipif(mirror() is None, reason=f"{MIRROR} names no mirror of the benchmarks")
@pytest.mark.parametrize(("model", "win_rate", "controlled"), LEADERBOARD)
def test_win_rates_are_the_leaderboards(model: str, win_rate: float, controlled: float) -> None:
    folder = mirror()
    assert folder is not None
    path = folder / f"alpaca_eval_v1/leaderboard/{model}.alpaca_eval_gpt4.annotations.json.gz"
    rows = json.loads(gzip.decompress(path.read_bytes()))
    values = [preference.preference(row) for row in rows]
    assert 100 * preference.win_rate(values) == pytest.approx(win_rate, abs=1e-3)
    lengths, references = [len(row["output_2"]) for row in rows], [len(row["output_1"]) for row in rows]
    ours = 100 * preference.length_controlled_win_rate(values, lengths, references)
    assert ours == pytest.approx(controlled, abs=12)  # theirs shares a term among all models of the leaderboard


def test_a_draw_counts_half_and_what_is_not_annotated_nothing() -> None:
    annotations = [{"preference": value} for value in (1.0, 2.0, 2.0, 0.0, None, 1.5)]
    values = [preference.preference(annotation) for annotation in annotations]
    assert values == [1.0, 2.0, 2.0, 1.5, None, 1.5]
    assert preference.win_rate(values) == 3 / 5
    with pytest.raises(ValueError, match="at least one annotated pair"):
        preference.win_rate([None])


def test_agreement_leaves_draws_out_and_counts_them() -> None:
    assert preference.agreement([1, 2, 1.5, 2, None], [1, 1, 1, 2, 2]) == preference.Agreement(2 / 3, 3, 1)
    assert math.isnan(preference.agreement([1.5], [1]).share)


def test_length_control_takes_away_what_length_alone_wins() -> None:
    lengths = [100, 300] * 200
    by_length = [1.0, 2.0] * 200  # wins exactly where it is longer
    assert preference.win_rate(by_length) == 0.5
    longer = [300] * 300 + [100] * 100
    wins = [2.0] * 280 + [1.0] * 20 + [1.0] * 90 + [2.0] * 10
    raw = preference.win_rate(wins)
    assert preference.length_controlled_win_rate(wins, longer, [200] * 400) < raw
    assert preference.length_controlled_win_rate(by_length, lengths, [200] * 400) == pytest.approx(0.5, abs=0.01)


def test_outputs_are_alpaca_evals_json() -> None:
    assert preference.outputs(["Say hi."], ["Hi."], "me") == [
        {"instruction": "Say hi.", "output": "Hi.", "generator": "me"}
    ]


def test_a_judge_that_names_a_place_draws() -> None:
    assert judges.both_orders(1.0, 1.0) == judges.both_orders(2.0, 2.0) == preference.DRAW
    assert (judges.both_orders(1.0, 2.0), judges.both_orders(2.0, 1.0)) == (1.0, 2.0)
    assert judges.both_orders(None, 1.0) is None


def test_a_local_model_is_judged_without_its_liking_for_a_place() -> None:
    assert preferred([-0.1, -3.0], [-0.5, -3.0]) == 1.0  # always likes 1, but less so when the answers change places
    assert preferred([-0.5, -3.0], [-0.1, -3.0]) == 2.0
    assert preferred([-0.1, -3.0], [-0.1, -3.0]) == preference.DRAW


class Endpoint(BaseHTTPRequestHandler):
    """Speaks OpenAI's protocol: prefers the answer with a "good" in it; no verdict without one."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        first, second = text.partition("# Answer 1")[2].split("# Answer 2")
        said = "1" if "good" in first else "Answer 2." if "good" in second.partition("Which")[0] else "neither"
        status = 200 if body["model"] == "fair" and self.headers["Authorization"] == "Bearer secret" else 401
        reply = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(judges.KEY, "secret")
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_an_endpoint_judges_in_both_orders(url: str) -> None:
    judge = judges.endpoint(url, "fair")
    assert judge([("?", "good", "bad"), ("?", "bad", "good"), ("?", "bad", "bad"), ("?", "good", "good")]) == [
        1.0,
        2.0,
        None,
        preference.DRAW,
    ]


def test_an_endpoint_that_refuses_or_is_not_there_is_one_sentence(url: str) -> None:
    for place, model in ((url, "other"), ("http://127.0.0.1:1/v1", "fair")):
        with pytest.raises(UserError, match="expected a verdict of .*; check that the endpoint runs") as caught:
            judges.endpoint(place, model)([("?", "a", "b")])
        assert "\n" not in str(caught.value)


def test_the_stage_writes_outputs_and_a_win_rate_beside_its_judges_worth(tmp_path: Path, url: str) -> None:
    answers = ["good", "bad", "good"]
    examples = [
        {
            "id": str(n),
            "messages": [{"role": "user", "content": "?"}],
            "target": "bad",
            "meta": {"question": f"q{n}", "reference": "r"},
        }
        for n in range(3)
    ]
    write_jsonl(tmp_path / "test.jsonl", examples)
    write_jsonl(tmp_path / "cell.jsonl", [{"id": str(n), "text": text} for n, text in enumerate(answers)])
    rows = [
        {"instruction": "?", "output_1": one, "output_2": other, "preference": value}
        for one, other, value in (("good", "bad", 1), ("bad", "good", 2), ("bad", "good", 1), ("bad", "bad", 0))
    ]
    write_jsonl(tmp_path / "annotations.jsonl", rows)
    found = run(
        judge="fair",
        cell="me",
        model=tmp_path,
        examples=tmp_path / "test.jsonl",
        completions=tmp_path / "cell.jsonl",
        annotated=tmp_path / "annotations.jsonl",
        compute=Compute(device="cpu", dtype="float32", threads=1, batch_tokens=64, cache_tokens=64),
        settings=Judging(kind="endpoint", pairs=3, seed=0, url=url, model="fair"),
        outputs=tmp_path / "outputs.json",
        annotations=tmp_path / "judged.json",
    )
    assert found["win_rate"] == 1.0  # of the two it says something about
    assert (found["agreement_with_gpt4"], found["agreement_pairs"]) == (pytest.approx(2 / 3), 3)
    assert [row["preference"] for row in read_json(tmp_path / "judged.json")] == [2.0, None, 2.0]
    assert read_json(tmp_path / "outputs.json")[0] == {"instruction": "q0", "output": "good", "generator": "me"}
