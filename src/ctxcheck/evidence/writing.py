"""From what a session learned to a document: each table, and where in it a thing is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

from ctxcheck.engine.classes import EVENT_LOOP, WITH, ContextStep, LockClass
from ctxcheck.engine.graph import Witness
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.sites import Trace, resolve
from ctxcheck.engine.slow import Over, Taken
from ctxcheck.engine.union import Union
from ctxcheck.engine.uses import Use
from ctxcheck.engine.validator import Validator
from ctxcheck.engine.waits import Slot
from ctxcheck.evidence.format import SCHEMA_VERSION, Document, to_portable
from ctxcheck.evidence.places import enters, position


def dump(source: Validator | Union) -> Document:
    """Return what a session's validator, or a union, has learned, as plain data that JSON can hold.

    To be called when the validator is quiet: after its session ended.  O(what is kept); a hundred bytes or two an
    order, and as much again for each place.
    """
    return Writer(source if isinstance(source, Union) else source.origins.everything()).document()


class Writer:
    """One document in the making: each table, and where in it a thing is."""

    def __init__(self, union: Union) -> None:
        self._union: Union = union
        self._tables: dict[str, list[Any]] = {
            name: [] for name in ("files", "codes", "places", "traces", "classes", "owners", "origins", "guards")
        }
        self._known: dict[tuple[str, Any], int] = {}

    def document(self) -> Document:
        """All of it, tables first."""
        union = self._union
        for lock_class in sorted(union.seen, key=lambda c: c.key):
            self._class(lock_class)
        body: Document = {
            "edges": [
                [self._class(a), self._class(b), pool.count, [self._witness(w) for w in pool.every()]]
                for (a, b), pool in sorted(union.edges.items(), key=lambda item: (item[0][0].key, item[0][1].key))
            ],
            "uses": [
                [context, self._class(c), [self._use(use) for alike in ways.values() for use in alike]]
                for (context, c), ways in union.used.items()
            ],
            "holds": [
                [self._class(c), sorted(masked), [self._use(use) for alike in ways.values() for use in alike]]
                for (c, masked), ways in union.held.items()
            ],
            "senders": [
                self._sender(target, place, sender.needs, woke=sender.woke)
                for target, places in union.senders.items()
                for place, sender in places.items()
            ],
            "taken": [
                [self._class(c), self._taken(place)] for c, places in union.taken.items() for place in places.values()
            ],
            "over": [
                [self._class(c), self._over(place)] for c, places in union.over.items() for place in places.values()
            ],
            "slots": [self._slot(slot) for slot in union.slots.values()],
            "joins": self._classes(union.joins),
            "handed_over": self._classes(union.handed_over),
            "several": self._classes(union.several),
        }
        return {"schema_version": SCHEMA_VERSION, **self._tables, **body}

    def _enter(self, table: str, key: Any, make: Callable[[], Any]) -> int:
        index = self._known.get((table, key))
        if index is None:
            row = make()  # may enter others
            rows = self._tables[table]
            index = self._known[table, key] = len(rows)
            rows.append(row)
        return index

    def _class(self, lock_class: LockClass) -> int:
        base = lock_class.base

        def row() -> list[Any]:
            if base is not lock_class:
                return [lock_class.key, lock_class.name, "", self._class(base), -1, 0]
            flags = lock_class.unstable | lock_class.library << 1
            return [lock_class.key, lock_class.name, lock_class.kind.name, -1, self._trace(lock_class.made_at), flags]

        return self._enter("classes", lock_class, row)

    def _classes(self, lock_classes: Iterable[LockClass]) -> list[int]:
        return [self._class(c) for c in sorted(lock_classes, key=lambda c: c.key)]

    def _guards(self, guards: frozenset[LockClass]) -> int:
        return self._enter("guards", guards, lambda: self._classes(guards))

    def _owner(self, owner: Owner) -> int:
        thread = owner.thread
        return self._enter(
            "owners", owner, lambda: [owner.kind, owner.name, -1 if thread is owner else self._owner(thread)]
        )

    def _origin(self, origin: str) -> int:
        return self._enter("origins", origin, lambda: origin)

    def _trace(self, trace: Trace) -> int:
        # by identity: equal ones are shared where it matters, and code objects are dear to hash
        key = (trace.lastis, *map(id, trace.codes))
        return self._enter("traces", key, lambda: list(map(self._place, trace.codes, trace.lastis)))

    def _place(self, code: CodeType, lasti: int) -> int:
        def row() -> list[Any]:
            place = resolve(code, lasti)
            name = to_portable(place.filename)
            file = self._enter("files", name, lambda: name)
            first = code.co_firstlineno
            scope = self._enter("codes", (name, place.function, first), lambda: [file, place.function, first])
            at, instruction = position(code, lasti), enters(code, lasti)
            return [scope, at, place.line, place.end_line, place.column, place.end_column, instruction]

        return self._enter("places", (id(code), lasti), row)

    def _witness(self, w: Witness) -> list[Any]:
        return [
            self._owner(w.owner), self._guards(w.guards), self._origin(w.origin), w.held_mode.name, w.taken_mode.name,
            self._trace(w.held_at), self._trace(w.taken_at), w.allowed,
        ]  # fmt: skip

    def _use(self, use: Use) -> list[Any]:
        return [
            self._owner(use.owner), self._guards(use.guards), self._origin(use.origin), use.mode.name,
            self._trace(use.trace), *use.allowed, use.doubt, sorted(use.flags),
        ]  # fmt: skip

    def _taken(self, place: Taken) -> list[Any]:
        step = place.inside.step
        label = step.label if isinstance(step, ContextStep) and step is not EVENT_LOOP else ""
        return [
            self._owner(place.owner), self._guards(place.guards), self._origin(place.origin), label,
            self._trace(place.inside.trace), self._trace(place.trace), place.timed, place.allowed,
        ]  # fmt: skip

    def _over(self, place: Over) -> list[Any]:
        mode = place.held.step.mode
        return [
            self._owner(place.owner), self._guards(place.guards), self._origin(place.origin),
            mode.name if mode is not None else WITH.name, self._trace(place.held.trace), place.call,
            self._trace(place.trace), place.allowed,
        ]  # fmt: skip

    def _sender(
        self, target: LockClass, place: tuple[str, str, int], needs: Iterable[LockClass], *, woke: bool
    ) -> list[Any]:
        return [self._class(target), [to_portable(place[0]), *place[1:]], self._classes(needs), woke]

    def _slot(self, slot: Slot) -> list[Any]:
        return [
            self._class(slot.pool), self._class(slot.job), -1 if slot.waiting is None else self._class(slot.waiting),
            self._owner(slot.owner), self._origin(slot.origin), self._trace(slot.began_at), self._trace(slot.trace),
            slot.timed, slot.allowed, slot.workers, slot.inside,
        ]  # fmt: skip
