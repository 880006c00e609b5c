"""What a session has found, by origin: one violation a fingerprint, as it is told in the end.

A violation is kept and counted, written to the data file before anything can swallow it, and told.  What a verdict over
all that was seen makes of it later takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from ctxcheck.engine.findings import Finding, InterruptFacts, OrderFacts, SlotFacts, SlowFacts
from ctxcheck.engine.origins import outliving
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.rules import GRADES

if TYPE_CHECKING:
    from ctxcheck.engine.graph import Edge, Evidence
    from ctxcheck.engine.violations import Violation
    from ctxcheck.wording import Wording

#: What is told when it first shows, and computed anew from everything that was seen.
SETTLED: Final = frozenset({"CTX001", "CTX004", "CTX005", "CTX006", "CTX105"})
_NOBODY: Final[set[Owner]] = set()


class Sink(Protocol):
    """Where findings, and the orders that were learned, are written as they are made."""

    def write(self, record: dict[str, Any]) -> object:
        """Write one record, at once."""


@final
class Book:
    """The violations of one origin, by fingerprint, and which owners made each."""

    __slots__ = ("by", "found")

    def __init__(self) -> None:
        self.found: dict[str, Violation] = {}
        self.by: dict[str, set[Owner | None]] = {}


@final
class Books:
    """The books of one session.  May be called from any thread, and in the middle of itself.

    Args:
        wording: puts findings into words.
        sink: where they are written, if anywhere.
        tell: is given each violation that is news, when it is written.
    """

    def __init__(self, wording: Wording, sink: Sink | None, tell: Callable[[Violation], object]) -> None:
        self._wording: Wording = wording
        self._sink: Sink | None = sink
        self._tell: Callable[[Violation], object] = tell
        self._books: dict[str, Book] = {"": Book()}
        #: the fingerprints of what a verdict over the orders tells of, as it does over those of several processes
        self._judged: set[str] = set()
        #: in a forked child: how often each finding was seen before
        self._inherited: dict[tuple[str, str], int] | None = None

    def book(self, origin: str) -> Book:
        """An origin's book; made, if need be."""
        book = self._books.get(origin)
        return book if book is not None else self._books.setdefault(origin, Book())

    def origins(self) -> list[str]:
        """The origins that have violations and aren't over, but for the empty one."""
        return sorted(origin for origin, book in self._books.items() if origin and book.found)

    # --- what comes in --------------------------------------------------------------

    def record(self, finding: Finding) -> Violation:
        """Enter a finding, or count it once more; one that isn't wanted is only put into words."""
        book = self.book(finding.origin)
        violation = self._known(finding, book)
        if violation is None:
            violation = self.compose(finding)
            if not self._wording.wanted(violation):
                return violation
            known = book.found.get(violation.fingerprint)
            if known is not None:  # seen before, but less sure, or accepted there
                if known.allowed_by is None and violation.allowed_by is not None:
                    violation = known  # accepted here is not accepted there
                violation = violation.replace(count=max(violation.count, known.count + 1))
            book.found[violation.fingerprint] = violation
            if known is None or (known.grade, known.allowed_by) != (violation.grade, violation.allowed_by):
                self._write_found(violation, finding.origin)
                self._tell(violation)
        if finding.origin:
            book.by.setdefault(violation.fingerprint, set()).add(finding.owner)
        return violation

    def put(self, violation: Violation) -> None:
        """Enter and write what isn't made of a finding."""
        self.book("").found[violation.fingerprint] = violation
        self._write_found(violation, "")

    def compose(self, finding: Finding, seen: Mapping[Edge, Evidence] | None = None) -> Violation:
        """Put a finding into words; it isn't recorded.  ``seen`` is where its orders were seen, if not here."""
        violation = self._wording.compose(finding, seen)
        by_verdict = isinstance(finding.facts, (OrderFacts, InterruptFacts, SlowFacts, SlotFacts))
        if by_verdict and violation.fingerprint == self._wording.fingerprint(finding):  # else it has lost its words
            self._judged.add(violation.fingerprint)
        return violation

    def withdraw(self, finding: Finding) -> None:
        """It was none."""
        violation = self.compose(finding)
        held = [book.found.pop(violation.fingerprint, None) for book in list(self._books.values())]
        if any(held):
            self._write({"type": "withdrawn", "fingerprint": violation.fingerprint})

    def _known(self, finding: Finding, book: Book) -> Violation | None:
        """The violation that says all this finding has to say, counted once more: to compose one takes a while."""
        fingerprint = self._wording.fingerprint(finding)
        known = book.found.get(fingerprint)
        if known is None or GRADES.index(known.grade) < GRADES.index(finding.grade):
            return None
        if not self._wording.acceptance.again(fingerprint, finding, known):
            return None
        count = known.count + (not isinstance(finding.facts, (OrderFacts, InterruptFacts)))
        # the count may lose a little where threads race; the finding itself can't
        known = book.found[known.fingerprint] = known.replace(count=count)
        if self._inherited is not None:
            # in a child, whose end nobody may see; not each time, as a program may find it as often as it likes
            own = count - self._inherited.get((finding.origin, known.fingerprint), 0)
            if own > 0 and own & (own - 1) == 0:
                self._write_found(known, finding.origin)
        return known

    # --- what it comes to -----------------------------------------------------------

    def come_to(
        self,
        verdict: list[Finding] | None,
        pending: Iterable[Finding] = (),
        origin: str = "",
        gone: set[Owner] = _NOBODY,
    ) -> list[Violation]:
        """An origin's violations, as a verdict over all that was seen has them, but for what only the owners ``gone``
        have shown; with what is ``pending``.  Without a verdict: as they came."""
        book = self.book(origin)
        found = {f: v for f, v in book.found.items() if not (gone and f in book.by and book.by[f] <= gone)}
        fresh: dict[str, Violation] = {}
        for finding in verdict or []:
            violation = self.compose(finding)
            if self._wording.wanted(violation):
                fresh[violation.fingerprint] = violation
        for finding in pending:
            if finding.origin != origin:
                continue
            violation = self.compose(finding)
            if self._wording.wanted(violation):
                found.setdefault(violation.fingerprint, violation)
        result: list[Violation] = []
        for fingerprint, violation in found.items():
            settled = fresh.pop(fingerprint, None)
            if settled is not None and violation.grade != "certain":
                result.append(settled)
            elif verdict is not None and violation.rule in SETTLED and violation.grade != "certain":
                continue  # said when its edge came; a better cycle covers it now
            else:
                result.append(violation)
        return result + list(fresh.values())

    def keep(self, violations: Iterable[Violation], origin: str = "") -> None:
        """Enter, write and tell what a verdict has shown, or has made of what was told before."""
        book = self.book(origin)
        for violation in violations:
            known = book.found.get(violation.fingerprint)
            if known is None or known.grade != violation.grade or known.sites != violation.sites:
                # as it is told in the end, not as it was when it came
                book.found[violation.fingerprint] = violation
                self._write_found(violation, origin)
                if known is None:
                    self._tell(violation)

    def stand(self, violations: Iterable[Violation], origin: str, expected: Container[str]) -> None:
        """A test is over, and has shown these by itself: what others show together doesn't take their place.  Those
        that it ``expected`` are none."""
        for violation in violations:
            judged = violation.fingerprint in self._judged
            if violation.fingerprint in expected:
                self._write({"type": "expected", "fingerprint": violation.fingerprint, "origin": origin})
            elif judged:
                self._write({"type": "told", "fingerprint": violation.fingerprint})
            if judged and (violation.allowed_by is not None or violation.fingerprint in expected):
                self._write({"type": "excused", "rule": violation.rule, "keys": list(violation.keys)})

    def is_judged(self, violation: Violation) -> bool:
        """Whether a verdict over the evidence tells of it, or of another one instead."""
        return violation.fingerprint in self._judged

    def settle(self, violations: list[Violation]) -> None:
        """The session is over, with these of the empty origin: keep them, and withdraw what is told otherwise now."""
        self.keep(violations)
        told = {violation.fingerprint for violation in violations}
        told.update(f for origin, book in self._books.items() if origin for f in book.found)
        for fingerprint in [f for f in self.book("").found if f not in told]:
            # said when its edge came; a better cycle covers it now
            self._write({"type": "withdrawn", "fingerprint": fingerprint})

    def close(self, origin: str, gone: set[Owner], *, keep: bool) -> None:
        """An origin is over: what only owners ``gone`` have shown, who outlive it, goes on in the background's book, if
        it is to be kept."""
        book = self._books.pop(origin, None)
        if book is not None and gone and keep:
            later = self.book(outliving(origin))
            for fingerprint, owners in book.by.items():
                if owners <= gone and fingerprint in book.found and book.found[fingerprint].rule not in SETTLED:
                    later.found.setdefault(fingerprint, book.found[fingerprint])

    def after_fork(self) -> None:
        """In a forked child: what was found before is the parent's."""
        books = list(self._books.items())
        self._inherited = {(origin, f): v.count for origin, book in books for f, v in list(book.found.items())}

    # --- the data file --------------------------------------------------------------

    def _write(self, record: dict[str, Any]) -> None:
        if self._sink is not None:
            self._sink.write(record)

    def _write_found(self, violation: Violation, origin: str) -> None:
        judged = violation.fingerprint in self._judged
        if self._inherited:
            own = violation.count - self._inherited.get((origin, violation.fingerprint), 0)
            violation = violation.replace(count=max(1, own))
        record: dict[str, Any] = {"type": "violation", "violation": violation.to_dict(), "judged": judged}
        self._write(record | {"origin": origin} if origin else record)
