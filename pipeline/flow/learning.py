"""A training's curve as a page for Prefect: a picture, the numbers of the last step, and those of every step."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, EDGE = 640, 200, 36  # in pixels; the edge is around the lines
COLOURS = ("#3b82c4", "#d9792b", "#2a9d74")  # readable on white and on black
GREY = "#8a939c"


def page(title: str, points: Sequence[Mapping[str, Any]]) -> str:
    """Markdown. points: a mapping for each step, with ``step`` among its keys."""
    names = [name for name in points[-1] if name != "step"]
    last = points[-1]
    told = ", ".join(f"{name} {last[name]:.3f}" for name in names)
    lines = [f"# {title}", "", f"Step {last['step']}: {told}.", "", f"![the curve of {title}]({picture(points)})", ""]
    lines += [f"| step | {' | '.join(names)} |", f"|{' --- |' * (len(names) + 1)}"]
    for point in points:
        cells = [f"{point[name]:.4f}" if name in point else "" for name in names]
        lines.append(f"| {point['step']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(points: Sequence[Mapping[str, Any]]) -> str:
    """The curves as an SVG, in an address that needs no server. Each has a line, and all share one axis."""
    names = [name for name in points[-1] if name != "step"]
    values = [point[name] for point in points for name in names if name in point]
    low, high = min(values), max(values)
    first, last = points[0]["step"], max(points[-1]["step"], points[0]["step"] + 1)

    def place(step: float, value: float) -> str:
        x = EDGE + (step - first) / (last - first) * (WIDTH - 2 * EDGE)
        y = HEIGHT - EDGE - (value - low) / ((high - low) or 1.0) * (HEIGHT - 2 * EDGE)
        return f"{x:.1f},{y:.1f}"

    drawn = []
    for colour, name in zip(COLOURS, names, strict=False):
        path = " ".join(place(point["step"], point[name]) for point in points if name in point)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    legend = "".join(
        f'<tspan fill="{colour}" dx="12">— {name}</tspan>' for colour, name in zip(COLOURS, names, strict=False)
    )
    text = f'font-family="sans-serif" font-size="12" fill="{GREY}"'
    bottom, right = HEIGHT - EDGE, WIDTH - EDGE
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
        f'<path d="M{EDGE},{EDGE} V{bottom} H{right}" fill="none" stroke="{GREY}"/>'
        f'<text x="2" y="{EDGE + 4}" {text}>{high:.2f}</text><text x="2" y="{bottom}" {text}>{low:.2f}</text>'
        f'<text x="{EDGE}" y="{HEIGHT - 14}" {text}>step {first}</text>'
        f'<text x="{right}" y="{HEIGHT - 14}" text-anchor="end" {text}>{points[-1]["step"]}</text>'
        f'<text x="{EDGE}" y="20" {text}>{legend}</text>{"".join(drawn)}</svg>'
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
