"""The report as one HTML page: no script, no network, light and dark, readable on a phone and on paper.

A wide table or figure scrolls inside its own box; the page itself never scrolls sideways.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipeline.reporting.tables import (
    PUBLISHED_MODEL_NAME,
    READING,
    Comparison,
    Listing,
    cell_text,
    percent,
    row_name,
    signed,
)

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--raised:#f5f7f9;--ink:#1f2429;--soft:#5b6670;--line:#dde2e7;
--accent:#2b6cb0;--good:#1a7f4b;--bad:#b3372f;--goodground:#e4f5ec;--badground:#fbe9e7}
@media(prefers-color-scheme:dark){:root{--ground:#14181c;--raised:#1c2227;--ink:#dbe2ea;--soft:#97a3ae;--line:#303941;
--accent:#7db3ea;--good:#6fd09b;--bad:#f0938a;--goodground:#17342a;--badground:#3a2321}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main,header,footer{max-width:80rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem}
h2{font-size:1.3rem;margin:3rem 0 .6rem;scroll-margin-top:1rem}
h3{font-size:1rem;margin:1.6rem 0 .4rem}
p{max-width:46rem;margin:.5rem 0}
a{color:var(--accent)}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;margin:1.2rem 0;padding:.7rem 0;border:solid var(--line);
border-width:1px 0;font-size:.92rem}
nav a{text-decoration:none}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.8rem 1.5rem;margin:1.4rem 0}
dt{color:var(--soft);font-size:.82rem}dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.claim{border-left:3px solid var(--accent);background:var(--raised);padding:.7rem 1rem;border-radius:0 6px 6px 0}
.note{color:var(--soft);font-size:.88rem}
.wide{overflow-x:auto;margin:1rem 0;border:1px solid var(--line);border-radius:8px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.55rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tr:last-child>*{border-bottom:0}
thead th{background:var(--raised);font-size:.84rem}
th:first-child{position:sticky;left:0;background:var(--ground);background-clip:padding-box}
thead th:first-child{background-color:var(--raised)}
tbody th{font-weight:600;min-width:7.5rem}
th small,td small{display:block;color:var(--soft);font-weight:400;font-size:.78rem;white-space:nowrap}
td b{font-size:1.08rem}
td.number,th.number{text-align:right}
.change{display:inline-block;margin:.25rem 0 .15rem;padding:0 .45rem;border-radius:4px;background:var(--raised);
color:var(--soft);font-size:.8rem;white-space:nowrap}
.better{background:var(--goodground);color:var(--good)}.worse{background:var(--badground);color:var(--bad)}
small.paper{font-style:italic}
figure{margin:1.2rem 0}
figure .wide{padding:.8rem}
figure svg{display:block;height:auto;width:100%;margin:0 auto}
figcaption{color:var(--soft);font-size:.88rem;max-width:46rem}
details{margin:.8rem 0}summary{cursor:pointer;color:var(--accent)}
.sample{border:1px solid var(--line);border-radius:8px;margin:1rem 0;padding:.8rem 1rem}
.sample pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.2rem 0;font:.86rem/1.45 ui-monospace,monospace}
.answers{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr));gap:.7rem;margin-top:.8rem}
.answers>div{background:var(--raised);border-radius:6px;padding:.5rem .7rem;min-width:0}
.mark{white-space:nowrap;font-size:.82rem;font-weight:600}.right{color:var(--good)}.wrong{color:var(--bad)}
footer{color:var(--soft);font-size:.85rem;padding-top:2rem;padding-bottom:3rem}
@media print{nav{display:none}.wide{overflow:visible}}
"""


@dataclass(frozen=True)
class Answer:
    """What one method answered. read: what its scorer read off the answer, None where it could not."""

    by: str
    text: str
    read: str | None
    right: bool


@dataclass(frozen=True)
class Sample:
    """A prompt of a test split with every method's answer to it."""

    task: str
    prompt: str
    target: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Part:
    """A part of the page: an anchor, a heading and its HTML."""

    anchor: str
    title: str
    html: str


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def figure(svg: str, caption: str) -> str:
    """A figure; on a narrow screen a small one shrinks to fit, and a large one scrolls in its box."""
    width = float(svg.split('width="', 1)[1].split("pt", 1)[0])
    least = 0 if width < 420 else width
    drawn = svg.replace("<svg ", f'<svg style="min-width:{least:.0f}px;max-width:{1.5 * width:.0f}px" ', 1)
    return f'<figure><div class="wide" tabindex="0">{drawn}</div><figcaption>{escape(caption)}</figcaption></figure>'


def comparison(one: Comparison) -> str:
    """A table of accuracies with everything a cell is to be read with."""
    heads = ["<th>method</th>"]
    for task in one.tasks:
        below = f"<small>{escape(one.domains.get(task, ''))}</small>"
        if one.published and task in one.benchmarks:
            below += f'<small class="paper">paper: {one.benchmarks[task]},<br>{PUBLISHED_MODEL_NAME}</small>'
        heads.append(f"<th>{escape(task.replace('_', ' '))}{below}</th>")
    if one.trained:
        heads.append('<th class="number">trained<small>parameters</small></th>')
    body = []
    for row in one.rows:
        cells = [entry(one, row, task) for task in one.tasks]
        if one.trained:
            count, *shares = one.trained[row].texts if row in one.trained else ["–"]
            cells.append(f'<td class="number">{count}{"".join(f"<small>{share}</small>" for share in shares)}</td>')
        body.append(f"<tr><th>{escape(row_name(row))}</th>{''.join(cells)}</tr>")
    for name, label in (("majority", "Commonest answer, always"), ("random", "A choice at random")):
        known = [one.baselines.get(task, {}).get(name) for task in one.tasks]
        if any(value is not None for value in known):
            cells = [f"<td>{'–' if value is None else percent(value) + ' %'}</td>" for value in known]
            filler = "<td></td>" if one.trained else ""
            body.append(f"<tr><th>{label}<small>needs no model</small></th>{''.join(cells)}{filler}</tr>")
    html = [paragraph(one.claim, "claim"), table(heads, body), paragraph(READING, "note")]
    return "".join(html + [paragraph(sentence, "note") for sentence in one.alternatives])


def entry(one: Comparison, row: str, task: str) -> str:
    found = one.entry(row, task)
    if found is None:
        return "<td>–</td>"
    seeds = f", {found['seeds']} seeds" if found["seeds"] > 1 else ""
    parts = [
        f"<b>{percent(found['mean'])} %</b>",
        f"<small>[{percent(found['low'])}, {percent(found['high'])}] n = {found['n']}{seeds}</small>",
    ]
    if "diff" in found:
        change = f"{signed(found['diff'])} [{signed(found['diff_low'])}, {signed(found['diff_high'])}]"
        parts.append(f'<span class="change {found["verdict"]}">Δ {change} {found["verdict"]}</span>')
    shares = f"unparsed {percent(found['unparsed'])} % · truncated {percent(found['truncated'])} %"
    parts.append(f"<small>{shares}</small>")
    paper, base = one.published.get((row, task)), one.published.get(("base", task))
    if paper is not None:
        gain = f" ({signed(paper - base)})" if base is not None and row != "base" else ""
        parts.append(f'<small class="paper">paper: {percent(paper, 2)} %{gain}</small>')
    return f"<td>{''.join(parts)}</td>"


def listing(one: Listing) -> str:
    numeric = [any(isinstance(row[place], int | float) for row in one.rows) for place in range(len(one.columns))]
    kinds = [' class="number"' if number else "" for number in numeric]
    heads = [f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, one.columns, strict=True)]
    body = [
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell_text(value))}</td>" for kind, value in zip(kinds, row, strict=True))
        + "</tr>"
        for row in one.rows
    ]
    return (paragraph(one.note) if one.note else "") + (table(heads, body) if body else "")


def table(heads: Sequence[str], body: Sequence[str]) -> str:
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def folded(summary: str, html: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def samples(chosen: Sequence[Sample]) -> str:
    """Prompts with every method's answer, marked right or wrong."""
    parts = []
    for sample in chosen:
        answers = []
        for answer in sample.answers:
            kind, mark = ("right", "✓ right") if answer.right else ("wrong", "✗ wrong")
            read = "no answer read" if answer.read is None else f"read: {shortened(answer.read)}"
            answers.append(
                f'<div><strong>{escape(answer.by)}</strong> <span class="mark {kind}">{mark}</span>'
                f"<pre>{escape(shortened(answer.text)) or '(empty)'}</pre>"
                f'<span class="note">{escape(read)}</span></div>'
            )
        parts.append(
            f'<div class="sample"><span class="note">{escape(sample.task)}</span><pre>{escape(sample.prompt)}</pre>'
            f"<details><summary>reference answer</summary><pre>{escape(sample.target)}</pre></details>"
            f'<div class="answers">{"".join(answers)}</div></div>'
        )
    return "".join(parts)


def shortened(text: str, most: int = 400) -> str:
    return text if len(text) <= most else text[:most] + " …"


def page(title: str, lead: str, facts: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """The whole page. facts: the few things to know first, by name."""
    known = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items())
    links = "".join(f'<a href="#{part.anchor}">{escape(part.title)}</a>' for part in parts)
    body = "".join(f'<section><h2 id="{part.anchor}">{escape(part.title)}</h2>{part.html}</section>' for part in parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style></head><body>'
        f"<header><h1>{escape(title)}</h1>{paragraph(lead)}<dl>{known}</dl><nav>{links}</nav></header>"
        f"<main>{body}</main><footer>Every number of this page comes from the files of one run of dvc.yaml. Numbers "
        "marked “paper” are of other models and benchmarks.</footer></body></html>\n"
    )


def points(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def cost(one: Listing) -> str:
    """Seconds summed by kind of stage, and every stage folded away."""
    sums: dict[str, list[float]] = {}
    for stage, seconds, _ in one.rows:
        sums.setdefault(str(stage).partition("@")[0], []).append(float(seconds or 0))
    rows = tuple((kind, len(seconds), round(sum(seconds), 1), round(max(seconds), 1)) for kind, seconds in sums.items())
    total = Listing(one.key, one.title, ("stage", "runs", "seconds, all", "seconds, longest"), rows, one.note)
    every = Listing(one.key, one.title, one.columns, one.rows)
    return listing(total) + (folded("Every stage", listing(every)) if rows else "")
