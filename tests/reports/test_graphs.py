"""The graph for other programs: drawn, escaped, and read back by those who know the format."""

from __future__ import annotations

import json
import re

import networkx
import pydot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck.reports import graphs
from ctxcheck.reports.cells import safe
from ctxcheck.reports.graphs import Class, Graph, Order
from ctxcheck.reports.json import dumps

from .strategies import any_text

# the parser of dot uses names of its own parser that are on their way out
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ABC = (Class("m:A", "A", "lock"), Class("m:B", "B", "lock"), Class("m:C", "C", "rlock"))
ORDERS = (Order("m:A", "m:B", 3), Order("m:B", "m:A", 1), Order("m:B", "m:C", 2))


def read_dot(text: str) -> networkx.MultiDiGraph[str]:
    (parsed,) = pydot.graph_from_dot_data(text)
    return networkx.nx_pydot.from_pydot(parsed)


def unquote(text: str) -> str:
    assert text[0] == text[-1] == '"'
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def labels(text: str) -> list[str]:
    return [unquote(data["label"]) for _, data in read_dot(text).nodes(data=True) if "label" in data]


def test_dot_is_read_back_with_the_cycle_in_red() -> None:
    parsed = read_dot(graphs.dot(graphs.graph(ABC, ORDERS)))
    names = {node: unquote(data["label"]) for node, data in parsed.nodes(data=True) if "label" in data}
    assert sorted(names.values()) == ["A", "B", "C"]
    edges = {
        (names[a], names[b]): (unquote(data["label"]), data.get("color")) for a, b, data in parsed.edges(data=True)
    }
    assert edges == {("A", "B"): ("3", "red"), ("B", "A"): ("1", "red"), ("B", "C"): ("2", None)}


def test_mermaid() -> None:
    assert graphs.mermaid(graphs.graph(ABC, ORDERS)).splitlines() == [
        "flowchart LR",
        '    n0["A"]',
        '    n1["B"]',
        '    n2["C"]',
        "    n0 -->|3| n1",
        "    n1 -->|1| n0",
        "    n1 -->|2| n2",
        "    linkStyle 0,1 stroke:red,color:red",
    ]


def test_json() -> None:
    document = json.loads(dumps(graphs.document(graphs.graph(ABC, ORDERS))))
    assert document["classes"][2] == {"key": "m:C", "name": "C", "kind": "rlock"}
    assert [(e["from"], e["to"], e["count"], e["cycle"]) for e in document["edges"]] == [
        ("m:A", "m:B", 3, True), ("m:B", "m:A", 1, True), ("m:B", "m:C", 2, False),
    ]  # fmt: skip


def test_only_what_lies_on_a_cycle() -> None:
    some = graphs.graph(ABC, ORDERS, only_cycles=True)
    assert [c.name for c in some.classes] == ["A", "B"]
    assert len(some.orders) == 2
    assert graphs.graph(ABC, ORDERS[1:], only_cycles=True) == Graph((), (), frozenset())
    for render in (graphs.dot, graphs.mermaid):
        assert render(graphs.graph([], []))


def test_two_classes_of_one_name_are_told_apart() -> None:
    twins = graphs.graph([Class("a:x", "x", "lock"), Class("b:x", "x", "lock")], [Order("a:x", "b:x", 1)])
    assert labels(graphs.dot(twins)) == ["x (a:x)", "x (b:x)"]


HOSTILE = any_text | st.text(alphabet="\"\\;}{]['<>&#|`%\n\t", max_size=12)


@given(st.lists(HOSTILE, max_size=5, unique=True))
@settings(max_examples=100, deadline=None)
def test_no_name_breaks_out_of_its_label(names: list[str]) -> None:
    graph = graphs.graph([Class(f"k{i}", name, "lock") for i, name in enumerate(names)], [])
    text = graphs.dot(graph)
    assert labels(text) == [safe(name) for name in names]
    for rendered in (text, graphs.mermaid(graph)):
        assert all(line.isprintable() or "\u200c" in line or "\u200d" in line or not line.isascii()
                   for line in rendered.splitlines())  # fmt: skip
        assert "\x1b" not in rendered
        assert "\u202e" not in rendered
    mermaid = graphs.mermaid(graph).splitlines()
    assert len(mermaid) == 1 + len(names)
    for line, name in zip(mermaid[1:], names, strict=True):
        inside = re.fullmatch(r'    n\d+\["([^"]*)"\]', line)
        assert inside is not None
        assert re.sub(r"#(\d+);", lambda m: chr(int(m.group(1))), inside.group(1)) == safe(name)


@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
@settings(deadline=None)
def test_the_cycles_are_those_that_another_library_finds(pairs: set[tuple[int, int]]) -> None:
    pairs = {(a, b) for a, b in pairs if a != b}
    graph = graphs.graph([], [Order(str(a), str(b), 1) for a, b in pairs])
    other = networkx.DiGraph([(str(a), str(b)) for a, b in pairs])
    together = [set(c) for c in networkx.strongly_connected_components(other)]
    assert graph.cyclic == {e for e in other.edges if any(set(e) <= c for c in together)}


def test_a_long_chain_needs_no_recursion() -> None:
    graph = graphs.graph([], [Order(f"{i:06}", f"{i + 1:06}", 1) for i in range(50_000)])
    assert not graph.cyclic
