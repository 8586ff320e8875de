"""The graph by its entries in dvc.yaml: how many stages each has, and which entries it reads of.

``dvc dag`` draws every stage beside every other, which is wider than any screen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.flow.stages import Stage

FIRST = ("plan", "code")  # everything waits for these two


@dataclass(frozen=True)
class Entry:
    """An entry of dvc.yaml. needs: the entries that it reads of; direct: without those that another of them needs."""

    name: str
    count: int
    needs: tuple[str, ...]
    direct: tuple[str, ...]


def edges(stages: Sequence[Stage]) -> dict[str, list[str]]:
    """For each stage, the stages whose outputs it reads, but for ``FIRST``."""
    makers = {out: stage.name for stage in stages if stage.entry not in FIRST for out in stage.outs}
    # A stage may read a file in an output, or a folder of outputs.
    within: dict[str, set[str]] = {}
    for out, maker in makers.items():
        for folder in _folders(out):
            within.setdefault(folder, set()).add(maker)
    needs = {}
    for stage in stages:
        read = set().union(*(within.get(dep, set()) for dep in stage.deps))
        read |= {makers[folder] for dep in stage.deps for folder in _folders(dep) if folder in makers}
        needs[stage.name] = sorted(read - {stage.name})
    return needs


def _folders(path: str) -> Iterator[str]:
    """A path, and every folder it stands in."""
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))


def entries(stages: Sequence[Stage]) -> list[Entry]:
    """The entries, each after those it needs."""
    import networkx

    counts: dict[str, int] = {}
    for stage in stages:
        counts[stage.entry] = counts.get(stage.entry, 0) + 1
    graph = networkx.DiGraph()
    graph.add_nodes_from(entry for entry in counts if entry not in FIRST)
    for name, before in edges(stages).items():
        pairs = ((other.partition("@")[0], name.partition("@")[0]) for other in before)
        graph.add_edges_from((one, other) for one, other in pairs if one != other)
    acyclic = networkx.is_directed_acyclic_graph(graph)
    reduced = networkx.transitive_reduction(graph) if acyclic else graph
    order = networkx.lexicographical_topological_sort(graph) if acyclic else iter(graph)
    return [
        Entry(name, counts[name], tuple(sorted(graph.predecessors(name))), tuple(sorted(reduced.predecessors(name))))
        for name in order
    ]


def mermaid(found: Sequence[Entry]) -> str:
    """The entries as a flow chart in Mermaid."""
    lines = ["flowchart LR"]
    for entry in found:
        lines.append(f'  {entry.name}["{_label(entry)}"]')
        lines += [f"  {other} --> {entry.name}" for other in entry.direct]
    return "\n".join(lines)


def listed(found: Sequence[Entry]) -> list[str]:
    """The entries as lines of text."""
    width = max(len(_label(entry)) for entry in found)
    arrows = {entry.name: f"  ← {', '.join(entry.direct)}" if entry.direct else "" for entry in found}
    return [f"{_label(entry):{width}}{arrows[entry.name]}".rstrip() for entry in found]


def _label(entry: Entry) -> str:
    return entry.name if entry.count == 1 else f"{entry.name} × {entry.count}"


def around(stage: str, needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines on one stage: what it reads of, and what reads of it."""
    read = [f"← {other}" for other in needs[stage]]
    read_by = [f"→ {other}" for other, before in needs.items() if stage in before]
    return [*read, stage, *read_by]
