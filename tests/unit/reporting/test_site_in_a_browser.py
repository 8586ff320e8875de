"""The report's pages in a real browser, opened from the file system. Skipped where there is no Chromium."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from stages import report
from tests.browser import Browser, installed
from tests.made import make_run

STYLE = Path(__file__).resolve().parents[3] / "pipeline/reporting/site/static/style.css"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a made-up run's report."""
    root = tmp_path_factory.mktemp("site")
    arguments = make_run(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report.run(**arguments)
    return root / "reports"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = installed()
    if program is None:
        pytest.skip("no Chromium on this machine: install 'chromium' to see the pages in a browser")
    with Browser(program, tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1300, 1440])
def test_no_page_complains_or_scrolls_sideways(browser: Browser, site: Path, width: int, dark: bool) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 12
    for page in pages:
        browser.open(page, width=width, dark=dark)
        browser.until("[...document.images].every((image) => image.complete)")
        assert browser.complaints == [], page
        assert browser.value("document.documentElement.scrollWidth") <= width, page
        assert browser.value("[...document.images].filter((image) => !image.naturalWidth).length") == 0, page
        ground = browser.value("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) < 3 * 128) == dark, page


def test_a_wide_window_shows_every_column_of_the_result_tables(browser: Browser, site: Path) -> None:
    for name in ("index", "site/table1", "site/table2", "site/csreft", "site/parameters", "runs/index"):
        browser.open(site / f"{name}.html", width=1300)
        boxes = "[...document.querySelectorAll('.wide:has(table)')]"
        assert browser.value(f"{boxes}.filter((box) => box.scrollWidth > box.clientWidth).length") == 0, name


def test_a_table_sorts_by_the_keyboard_and_goes_back(browser: Browser, site: Path) -> None:
    browser.open(site / "site/table1.html", width=1440)
    column = "[...document.querySelectorAll('tbody tr')].map((row) => row.cells[1].dataset.value)"
    before = browser.value(column)
    for _ in range(60):
        browser.press("Tab")
        if browser.value("document.activeElement.textContent") == "sums":
            break
    assert browser.value("document.activeElement.matches('th button')")
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    orders, columns = [], []
    for _ in range(3):
        browser.press("Enter")
        orders.append(browser.value("document.activeElement.closest('th').getAttribute('aria-sort')"))
        columns.append([float(one) for one in browser.value(column) if one])
    assert orders == ["ascending", "descending", None]
    assert all(one <= other for one, other in pairwise(columns[0]))
    assert all(one >= other for one, other in pairwise(columns[1]))
    assert browser.value(column) == before


def test_the_tab_key_reaches_every_link_and_control(browser: Browser, site: Path) -> None:
    for name in ("index", "site/table2", "site/completions"):
        browser.open(site / f"{name}.html", width=390)
        browser.until("document.querySelector('#prompts') === null || document.querySelector('.prompt') !== null")
        wanted = browser.value(
            "document.querySelectorAll('a[href], button:not(:disabled), select, summary, .wide[tabindex]').length"
        )
        reached = 0
        for _ in range(wanted + 5):
            browser.press("Tab")
            seen = browser.value(
                "document.activeElement !== document.body && !document.activeElement.dataset.seen"
                " && (document.activeElement.dataset.seen = 1)"
            )
            reached += bool(seen)
        assert reached == wanted, name


def test_a_number_leads_to_its_completions_page_by_page(browser: Browser, site: Path) -> None:
    browser.open(site / "site/completions.html", width=1440, part="task=sums&cell=sums-svf-0")
    browser.until("document.querySelector('.prompt') !== null")
    assert browser.value("document.querySelector('[name=cell]').value") == "sums-svf-0"
    assert browser.value("document.querySelectorAll('.prompt').length") == 1  # report.samples of these settings
    assert browser.value("document.querySelectorAll('.answers > div').length") == 1
    assert browser.value("document.querySelector('.prompt pre').textContent").startswith("sums 0: is <b>1 & 2</b>")
    assert browser.value("document.getElementById('count').textContent") == "1 to 1 of 40 prompts of sums (math)"
    browser.value("document.querySelector('[name=next]').click()")
    browser.until("document.querySelector('.prompt h2').textContent === 'sums-1'")
    browser.value(
        "(() => { const kind = document.querySelector('[name=kind]'); kind.value = 'unread';"
        " kind.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    browser.until("location.hash.includes('kind=unread')")
    browser.until("document.querySelector('.answers .soft').textContent === 'no answer could be read'")
    browser.value("history.back()")
    browser.until("document.querySelector('.prompt h2').textContent === 'sums-1'")
    assert browser.complaints == []


def test_a_link_to_a_run_opens_what_it_was_made_with(browser: Browser, site: Path) -> None:
    browser.open(site / "runs/index.html", width=1440, part="score@groceries-prompt-0")
    browser.until("document.getElementById('score@groceries-prompt-0').querySelector('details').open")


def test_colours_of_text_have_contrast_enough_on_light_and_dark() -> None:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE.read_text(), flags=re.DOTALL)[:2]
    for sheet in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6});", sheet))
        pairs = [(text, ground) for text in ("ink", "soft", "accent") for ground in ("ground", "raised")]
        pairs += [("good", "good-ground"), ("bad", "bad-ground"), ("good", "raised"), ("bad", "raised")]
        pairs += [(text, "good-ground") for text in ("ink", "soft", "accent")]  # the row that a link led to
        for text, ground in pairs:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two sRGB colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
