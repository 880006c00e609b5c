"""The lock order graph for other programs to draw: dot (Graphviz), Mermaid, JSON.

Names of classes come from programs and data files, so each format escapes all that could end a label early, and
nothing that a terminal acts on is left in.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from ctxcheck.reports.cells import safe

SCHEMA_VERSION: Final = 1

#: What Mermaid's quoted labels take as it is; everything else of ASCII goes in as its number.
_PLAIN: Final = re.compile(r"[^A-Za-z0-9 _.,:/()\[\]\u0080-\U0010ffff-]")


class Class(NamedTuple):
    """One lock class."""

    key: str
    name: str
    kind: str


class Order(NamedTuple):
    """``target`` was asked for while ``source`` was held (class keys), recorded so many ``times``."""

    source: str
    target: str
    times: int


class Graph(NamedTuple):
    """Classes by key and orders, both sorted; ``cyclic`` are the orders that lie on a cycle."""

    classes: tuple[Class, ...]
    orders: tuple[Order, ...]
    cyclic: frozenset[tuple[str, str]]


def graph(classes: Iterable[Class], orders: Iterable[Order], *, only_cycles: bool = False) -> Graph:
    """Put a graph together; with ``only_cycles``, of the orders that lie on some cycle.  O(classes + orders)."""
    edges = sorted(set(orders))
    known = {item.key: item for item in classes}
    for edge in edges:
        for key in edge[:2]:
            known.setdefault(key, Class(key, key, "lock"))
    cyclic = frozenset((a, b) for a, b, _ in cyclic_edges(edges))
    if only_cycles:
        edges = [edge for edge in edges if edge[:2] in cyclic]
        within = {key for edge in edges for key in edge[:2]}
        known = {key: item for key, item in known.items() if key in within}
    return Graph(tuple(known[key] for key in sorted(known)), tuple(edges), cyclic)


def dot(graph: Graph) -> str:
    """Return the graph in Graphviz's language; what lies on a cycle is red."""
    numbers = {item.key: index for index, item in enumerate(graph.classes)}
    lines = ["digraph ctxcheck {", "    node [shape=box, fontname=monospace];"]
    for item, label in zip(graph.classes, _labels(graph.classes), strict=True):
        lines.append(f"    n{numbers[item.key]} [label={_dot(label)}, tooltip={_dot(f'{item.kind} {item.key}')}];")
    for source, target, count in graph.orders:
        red = ", color=red, fontcolor=red, penwidth=2" if (source, target) in graph.cyclic else ""
        lines.append(f'    n{numbers[source]} -> n{numbers[target]} [label="{count}"{red}];')
    return "\n".join([*lines, "}"])


def mermaid(graph: Graph) -> str:
    """Return the graph as a Mermaid flowchart; what lies on a cycle is red."""
    numbers = {item.key: index for index, item in enumerate(graph.classes)}
    lines = ["flowchart LR"]
    for item, label in zip(graph.classes, _labels(graph.classes), strict=True):
        lines.append(f'    n{numbers[item.key]}["{_mermaid(label)}"]')
    red: list[str] = []
    for index, (source, target, count) in enumerate(graph.orders):
        lines.append(f"    n{numbers[source]} -->|{count}| n{numbers[target]}")
        if (source, target) in graph.cyclic:
            red.append(str(index))
    if red:
        lines.append(f"    linkStyle {','.join(red)} stroke:red,color:red")
    return "\n".join(lines)


def document(graph: Graph) -> dict[str, Any]:
    """Return the graph as plain data for :func:`ctxcheck.reports.json.dumps`; ``cycle`` marks what lies on one."""
    return {
        "schema_version": SCHEMA_VERSION,
        "classes": [{"key": c.key, "name": c.name, "kind": c.kind} for c in graph.classes],
        "edges": [
            {"from": source, "to": target, "count": count, "cycle": (source, target) in graph.cyclic}
            for source, target, count in graph.orders
        ],
    }


def cyclic_edges(edges: Sequence[Order]) -> list[Order]:
    """The edges that lie on a cycle (Tarjan's strongly connected components, without recursion)."""
    numbers: dict[str, int] = {}
    for edge in edges:
        for key in edge[:2]:
            numbers.setdefault(key, len(numbers))
    successors: list[list[int]] = [[] for _ in numbers]
    for source, target, _ in edges:
        successors[numbers[source]].append(numbers[target])
    component = components(successors)
    return [e for e in edges if component[numbers[e[0]]] == component[numbers[e[1]]]]


def components(successors: Sequence[Sequence[int]]) -> Sequence[int]:
    """The number of each node's strongly connected component.  Memory: 16 bytes a node."""
    size = len(successors)
    index, low, component = array("i", [-1]) * size, array("i", [0]) * size, array("i", [-1]) * size
    stack = array("i")
    counter = found = 0
    for root in range(size):
        if index[root] >= 0:
            continue
        index[root] = low[root] = counter
        counter += 1
        stack.append(root)
        work = [(root, iter(successors[root]))]
        while work:
            node, rest = work[-1]
            for next_ in rest:
                if index[next_] < 0:
                    index[next_] = low[next_] = counter
                    counter += 1
                    stack.append(next_)
                    work.append((next_, iter(successors[next_])))
                    break
                if component[next_] < 0:
                    low[node] = min(low[node], index[next_])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    while component[node] < 0:
                        component[stack.pop()] = found
                    found += 1
    return component


def _labels(classes: Sequence[Class]) -> list[str]:
    """The names, with the key where one name stands for several classes."""
    times = Counter(item.name for item in classes)
    return [c.name if times[c.name] == 1 else f"{c.name} ({c.key})" for c in classes]


def _dot(text: str) -> str:
    escaped = safe(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _mermaid(text: str) -> str:
    return _PLAIN.sub(_as_number, safe(text))


def _as_number(match: re.Match[str]) -> str:
    return f"#{ord(match.group())};"
