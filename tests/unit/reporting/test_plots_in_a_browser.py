"""The page of 'dvc plots show' in a real browser, without a network. Skipped where there is no Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc_render import render_html
from dvc_render.vega import VegaRenderer

from tests.browser import Browser, installed


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = installed()
    if program is None:
        pytest.skip("no Chromium on this machine: install 'chromium' to see the pages in a browser")
    with Browser(program, tmp_path_factory.mktemp("chromium")) as started:
        yield started


def rewards(revision: str, gain: float) -> list[dict[str, Any]]:
    """As DVC hands on what it reads of a CSV file: all values are texts."""
    return [
        {
            "rev": revision,
            "training": f"svf-{task}-0",
            "coefficient": "0.02",
            "step": str(step),
            "reward": str(gain * step),
        }
        for task in ("sums", "kinds")
        for step in range(1, 5)
    ]


def accuracies(revision: str, mean: float) -> list[dict[str, Any]]:
    return [
        {
            "rev": revision,
            "panel": f"Table 1, {task}",
            "row": row,
            "accuracy": str(mean),
            "low": str(mean - 5),
            "high": str(mean + 5),
        }
        for task in ("sums", "kinds")
        for row in ("base", "svf", "lora")
    ]


def alphas(revision: str) -> list[dict[str, Any]]:
    return [
        {"rev": revision, "search": "few_shot-uses-0", "layer": str(layer), "expert": expert, "alpha": str(alpha)}
        for layer in range(2)
        for expert, alpha in (("svf-sums-0", 0.8), ("svf-kinds-0", -0.2))
    ]


def drawn(browser: Browser, root: Path, path: Path, *plots: tuple[str, str, str, list[dict[str, Any]]]) -> None:
    """Have DVC's library write the page, and open it. plots: template, x, y and rows of each."""
    renderers = [
        VegaRenderer(rows, name=f"plot-{place}", template=template, template_dir=str(root / ".dvc/plots"), x=x, y=y)
        for place, (template, x, y, rows) in enumerate(plots)
    ]
    render_html(renderers, path, html_template=root / ".dvc/plots/page.html")
    browser.open(path, width=1200)


def test_every_template_is_drawn_with_a_panel_each_and_no_network(browser: Browser, root: Path, tmp_path: Path) -> None:
    drawn(
        browser,
        root,
        tmp_path / "index.html",
        ("learning", "step", "reward", [*rewards("workspace", 0.1), *rewards("HEAD", 0.05)]),
        ("accuracy", "accuracy", "row", [*accuracies("workspace", 60), *accuracies("HEAD", 50)]),
        ("mixture", "expert", "alpha", alphas("workspace")),
    )
    assert browser.complaints == []
    assert browser.value("document.querySelectorAll('figure').length") == 2 + 2 + 1
    assert browser.value("document.querySelectorAll('#plot-0 polyline').length") == 2 * 2  # each panel, both revisions
    assert browser.value("document.querySelectorAll('#plot-1 circle').length") == 2 * 3 * 2
    assert browser.value("document.querySelectorAll('#plot-2 rect').length") == 2  # the mean over layers
    assert browser.value("[...document.querySelectorAll('#plot-0 .key span')].map((one) => one.textContent)") == [
        "● workspace",
        "● HEAD",
    ]
    assert "NaN" not in browser.value("document.body.outerHTML").partition("<script")[0]
    assert browser.value("document.documentElement.scrollWidth") <= 1200


def test_a_point_stands_where_its_number_is(browser: Browser, root: Path, tmp_path: Path) -> None:
    rows = [
        {**rewards("workspace", 1)[0], "step": str(step), "reward": str(reward)}
        for step, reward in ((0, 0), (2, 1), (4, 4))
    ]
    drawn(browser, root, tmp_path / "index.html", ("learning", "step", "reward", rows))
    left, middle, right = browser.value(
        "[...document.querySelectorAll('circle')].map((one) => [+one.getAttribute('cx'), +one.getAttribute('cy')])"
    )
    assert middle[0] == pytest.approx((left[0] + right[0]) / 2)
    assert left[1] - middle[1] == pytest.approx((left[1] - right[1]) / 4)


def test_dvcs_own_templates_are_drawn_too_and_what_is_not_known_is_a_table(
    browser: Browser, root: Path, tmp_path: Path
) -> None:
    rows = [{"rev": "workspace", "step": str(step), "loss": str(1 / step)} for step in (1, 2, 3)]
    drawn(browser, root, tmp_path / "index.html", ("linear", "step", "loss", rows), ("confusion", "step", "loss", rows))
    assert browser.complaints == []
    assert browser.value("document.querySelectorAll('#plot-0 polyline, #plot-0 circle').length") > 0
    assert browser.value("document.querySelectorAll('#plot-1 table tr, #plot-1 svg').length") > 0
