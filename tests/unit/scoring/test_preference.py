"""Win rates, what judges say, and what their word is worth."""

import json
import math
import random
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifacts import read_json, write_jsonl
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.data.tables import MIRROR, mirror, read_table
from pipeline.evaluation.further import win_rates
from pipeline.evaluation.intervals import Resampling
from pipeline.evaluation.judges import PIECE, Judging, in_pieces, judge_of, preferred
from pipeline.model.forward.base import Compute
from pipeline.reporting.tables.further import win_rate_table
from pipeline.scoring import preference
from pipeline.scoring.preference import judges
from pipeline.tasks import alpaca_eval
from stages import agree
from stages.judge import run

COMPUTE = Compute(device="cpu", dtype="float32", threads=1, batch_tokens=64, cache_tokens=64)
# model, its win rate and length-controlled win rate on AlpacaEval's own leaderboard, and how near ours is to the latter
LEADERBOARD = [
    ("alpaca-7b", 26.4596, 26.29, 1),
    ("claude", 91.5528, 76.83, 5),
    ("gpt4", 95.2795, 86.51, 5),
    ("llama-2-7b-chat-hf", 71.3665, 29.29, 10),
    ("text_davinci_001", 15.1741, 20.57, 1),
]


@pytest.mark.skipif(mirror() is None, reason=f"{MIRROR} names no mirror of the benchmarks")
def test_win_rates_are_the_leaderboards() -> None:
    rows = read_table("annotations", alpaca_eval.TABLES["annotations"])
    difficulty = preference.difficulties(rows)
    for model, win_rate, controlled, near in LEADERBOARD:
        own = [row for row in rows if row["generator_2"] == model]
        values = [preference.preference(row) for row in own]
        assert 100 * preference.win_rate(values) == pytest.approx(win_rate, abs=1e-3)
        ours = preference.length_controlled_win_rate(
            values,
            [len(row["output_2"]) for row in own],
            [len(row["output_1"]) for row in own],
            [difficulty[row["instruction"]] for row in own],
        )
        assert 100 * ours == pytest.approx(controlled, abs=near), model


def test_an_instruction_on_which_more_models_win_is_told_by_its_difficulty() -> None:
    draw = random.Random(0)
    rows = [
        {
            "instruction": f"i{number}",
            "generator_2": f"m{model}",
            "output_1": "x" * 50,
            "output_2": "x" * draw.randint(20, 90),
            "preference": 2.0 if draw.random() < (0.9 if number % 2 else 0.2) else 1.0,
        }
        for model in range(6)
        for number in range(60)
    ]
    found = preference.difficulties(rows)
    easy, hard = ([found[f"i{number}"] for number in range(60) if number % 2 == odd] for odd in (1, 0))
    assert min(easy) > max(hard) - 1 and sum(easy) / 30 > sum(hard) / 30 + 1


def test_a_draw_counts_half_and_what_is_not_annotated_nothing() -> None:
    annotations = [{"preference": value} for value in (1.0, 2.0, 2.0, 0.0, None, 1.5)]
    values = [preference.preference(annotation) for annotation in annotations]
    assert values == [1.0, 2.0, 2.0, 1.5, None, 1.5]
    assert preference.win_rate(values) == 3 / 5
    with pytest.raises(UserError, match="at least one annotated pair"):
        preference.win_rate([None])


def test_an_annotation_that_is_no_number_says_nothing() -> None:
    """JSON has no NaN, but pandas writes one where an annotator failed."""
    assert preference.preference({"preference": math.nan}) is None
    assert preference.win_rate([math.nan, 2.0, None]) == 1
    assert preference.agreement([math.nan, 1.0, 2.0], [1.0, 1.0, None]) == preference.Agreement(1.0, 1, 0)
    assert preference.length_controlled_win_rate([math.nan, 2.0, 1.0], [9, 5, 5], [9, 5, 5]) == pytest.approx(0.5)
    rows = [
        {"instruction": f"i{number}", "generator_2": "m", "output_1": "x", "output_2": "xy", "preference": value}
        for number, value in enumerate([math.nan, 2.0, 1.0])
    ]
    assert set(preference.difficulties(rows)) == {"i1", "i2"}


@pytest.mark.parametrize("value", [3, -1, 0.5, True, "2", [1], math.inf])
def test_an_annotation_that_is_no_preference_is_one_sentence(value: object) -> None:
    with pytest.raises(UserError, match="expected a preference from 1 to 2, .* 'Greet.'; correct the annotations"):
        preference.preference({"preference": value, "instruction": "Greet."})


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
        {"instruction": "?", "output_1": one, "output_2": other, "generator_2": "m", "preference": value}
        for one, other, value in (("good", "bad", 1), ("bad", "good", 2), ("bad", "good", 1), ("bad", "bad", 0))
    ]
    write_jsonl(tmp_path / "annotations.jsonl", rows)
    shared: dict[str, Any] = {
        "judge": "fair",
        "model": tmp_path,
        "annotated": tmp_path / "annotations.jsonl",
        "agreement": tmp_path / "fair.json",
        "compute": COMPUTE,
        "settings": Judging(kind="endpoint", task="alpaca_eval", pairs=3, seed=0, url=url, model="fair"),
    }
    agreed = agree.run(**shared, checkpoints=Checkpoints(tmp_path / "agreeing"))
    assert agreed == {"agreement_with_gpt4": pytest.approx(2 / 3), "pairs": 3, "draws": 0}
    found = run(
        **shared,
        cell="me",
        examples=tmp_path / "test.jsonl",
        completions=tmp_path / "cell.jsonl",
        outputs=tmp_path / "outputs.json",
        annotations=tmp_path / "judged.json",
        preferences=tmp_path / "preferences.json",
        checkpoints=Checkpoints(tmp_path / "judging"),
    )
    assert found["win_rate"] == 1.0  # of the two it says something about
    assert (found["agreement_with_gpt4"], found["agreement_pairs"]) == (pytest.approx(2 / 3), 3)
    assert [row["preference"] for row in read_json(tmp_path / "judged.json")] == [2.0, None, 2.0]
    assert read_json(tmp_path / "outputs.json")[0] == {"instruction": "q0", "output": "good", "generator": "me"}
    (line,) = win_rates([read_json(tmp_path / "preferences.json")], Resampling(resamples=100, seed=0))
    assert (line["win_rate"], line["n"], line["agreement_n"], line["agreement_draws"]) == (1.0, 2, 3, 0)
    assert line["agreement"] == pytest.approx(2 / 3)
    assert line["agreement_low"] < line["agreement"] < line["agreement_high"]
    table = win_rate_table([line])
    assert table.rows[0][:3] == ("me", "fair", 100.0) and table.rows[0][7] == 66.67


def test_a_judge_that_was_killed_goes_on_behind_its_last_piece(tmp_path: Path) -> None:
    pairs = [("?", "a" * (n % 7), "b" * (n % 5)) for n in range(3 * PIECE)]
    seen: list[int] = []

    def breaks(asked: Sequence[tuple[str, str, str]]) -> list[float | None]:
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(len(asked))
        return judges.longer(asked)

    with pytest.raises(KeyboardInterrupt):
        in_pieces(breaks, pairs, "judge", Checkpoints(tmp_path))
    rest: list[int] = []

    def counts(asked: Sequence[tuple[str, str, str]]) -> list[float | None]:
        rest.append(len(asked))
        return judges.longer(asked)

    assert in_pieces(counts, pairs, "judge", Checkpoints(tmp_path)) == judges.longer(pairs)
    assert rest == [PIECE, PIECE]


def test_chance_agrees_half_the_time_and_says_the_same_twice() -> None:
    pairs = [(f"q{n}", "a", "b") for n in range(2000)]
    said = judges.by_chance(0)(pairs)
    assert said == judges.by_chance(0)(pairs) and said != judges.by_chance(1)(pairs)
    assert preference.agreement(said, [1.0] * 2000).share == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("kind", "wanted"), [("endpoint", "'url' and 'model'"), ("local", "'characters'")])
def test_a_judge_that_lacks_a_setting_is_one_sentence(kind: Any, wanted: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"expected {wanted} in 'judges.mine'|'judges.mine' of .* to have {wanted}"):
        judge_of("mine", Judging(kind=kind, task="alpaca_eval", pairs=1, seed=0), model=tmp_path, compute=COMPUTE)
