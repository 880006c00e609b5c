"""The notifier chain: how an address space tells its secondary MMUs that mappings change.

A secondary MMU (a graphics card, a network card, a virtual machine) keeps translations
of its own.  When the processor's page tables change, it has to forget them in time.
Every function below belongs to one of two levels, and the markers say which:

address level
    ``invalidate_range_start`` and ``invalidate_range_end`` enclose a change to a range of
    addresses.  Their callbacks may sleep.  In between, drivers map nothing in the range.
page level
    ``invalidate_page``, ``change_pte`` and ``clear_young`` speak of one page, and a page
    stands still only while its page table is locked.  That lock is a spin lock, so
    nothing at this level may sleep.

The markers sit on these wrapper functions and not in the drivers, so that a caller who
breaks a rule is told so on any machine: with no driver registered, and with the whole
subsystem switched off (``ENABLED``).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Literal

from ctxcheck import SpinLock, atomic, might_sleep, range_end, range_start, requires_lock, track, within_range

if TYPE_CHECKING:
    from mm import MM, Pte

#: What a kernel decides when it is built (CONFIG_MMU_NOTIFIER).  If false, no callback
#: is ever made; the checks stay.
ENABLED = True

#: What a driver answers to the start of a range; "again" only if the range is non-blockable.
Answer = Literal["done", "again"]


class WouldSleepError(Exception):
    """A driver would have had to sleep to follow a non-blockable start; no range was opened."""


class Notifier:
    """What a secondary MMU is told.  Every callback does nothing until it is overridden."""

    def range_start(self, mm: MM, start: int, end: int, blockable: bool) -> Answer:
        """Map nothing in [start, end) until ``range_end``; what is mapped goes page by page.

        May sleep if ``blockable``; if not, answer "again" instead of sleeping.
        """
        return "done"

    def range_end(self, mm: MM, start: int, end: int) -> None:
        """The page tables have changed.  May sleep if the start was blockable."""

    def invalidate_page(self, mm: MM, address: int) -> None:
        """The page at ``address`` is gone.  Must not sleep."""

    def change_pte(self, mm: MM, address: int, pte: Pte) -> None:
        """Another page is at ``address`` now.  Must not sleep."""

    def clear_young(self, mm: MM, address: int) -> bool:
        """Say whether the device used the page since it was last asked.  Must not sleep."""
        return False


# --- who listens ----------------------------------------------------------------------


@might_sleep("waits for mmap_lock")
def register(mm: MM, notifier: Notifier) -> None:
    """Let ``notifier`` hear of ``mm`` from now on.

    Every operation of the model holds ``mmap_lock`` from before its range starts until
    after it ends.  So nobody is registered, or gone, in the middle of a range.
    """
    with mm.mmap_lock:
        mm.notifiers = (*mm.notifiers, notifier)


@might_sleep("waits for mmap_lock, and so for the callbacks that still run")
def unregister(mm: MM, notifier: Notifier) -> None:
    """Take ``notifier`` off the chain; no callback to it runs after the return."""
    with mm.mmap_lock:
        mm.notifiers = tuple(each for each in mm.notifiers if each is not notifier)


def listeners(mm: MM) -> tuple[Notifier, ...]:
    """Return whom to call back."""
    return mm.notifiers if ENABLED else ()


# --- address level: may sleep ---------------------------------------------------------


@range_start(
    "mmu",
    key="mm",
    span=("start", "end"),
    why="drivers wait for their devices here, so the caller must be allowed to sleep",
)
def invalidate_range_start(mm: MM, start: int, end: int) -> None:
    """Open the range [start, end) of ``mm``: its page tables are about to change.

    Call it before the page-table lock is taken.  It may sleep, also on the day when no
    driver does.
    """
    with _callbacks():
        for notifier in listeners(mm):
            notifier.range_start(mm, start, end, blockable=True)


@range_end(
    "mmu",
    key="mm",
    span=("start", "end"),
    why="drivers wait for their devices here, so the caller must be allowed to sleep",
)
def invalidate_range_end(mm: MM, start: int, end: int) -> None:
    """Close the range.  Call it after the page-table lock is dropped: it may sleep."""
    for notifier in listeners(mm):
        with _callbacks():
            notifier.range_end(mm, start, end)


@range_start("mmu", key="mm", span=("start", "end"), sleeps=False)
def invalidate_range_start_nonblock(mm: MM, start: int, end: int) -> None:
    """Open the range without sleeping, or raise :class:`WouldSleepError` and open nothing.

    No lock needs to be held for this: whoever frees memory in an emergency must not be
    made to wait by a driver that itself waits for memory.
    """
    started: list[Notifier] = []
    for notifier in listeners(mm):
        with _non_block(notifier, "range_start"):
            answer = notifier.range_start(mm, start, end, blockable=False)
        if answer == "again":
            # The caller must not end a range that was never opened, so those who have
            # heard of the start hear of the end from here.
            _end_without_blocking(started, mm, start, end)
            raise WouldSleepError(f"{type(notifier).__name__} cannot follow without sleeping")
        started.append(notifier)


@range_end("mmu", key="mm", span=("start", "end"), sleeps=False)
def invalidate_range_end_nonblock(mm: MM, start: int, end: int) -> None:
    """Close a range that was opened without blocking; its callbacks must not sleep either."""
    _end_without_blocking(listeners(mm), mm, start, end)


@contextmanager
def invalidating(mm: MM, start: int, end: int) -> Generator[None, None, None]:
    """Enclose a block in a start and its end."""
    invalidate_range_start(mm, start, end)
    try:
        yield
    finally:
        invalidate_range_end(mm, start, end)


# --- page level: atomic ---------------------------------------------------------------
# Each of these states three things: the page table of the address is locked; nothing
# inside may sleep, which holds for the callbacks; and, where the mapping changes, an open
# range covers the address.


def page_table_lock(mm: MM, address: int, *_: object) -> SpinLock:
    """Return the lock without which the page at ``address`` means nothing."""
    return mm.table_at(address).lock


@within_range(
    "mmu",
    key="mm",
    at="address",
    why="outside a range a driver may map the page again at any moment, and keep it after it was freed",
)
@requires_lock(page_table_lock)
@atomic
def invalidate_page(mm: MM, address: int) -> None:
    """Tell the drivers that the page at ``address`` is no longer mapped."""
    for notifier in listeners(mm):
        notifier.invalidate_page(mm, address)


@within_range(
    "mmu",
    key="mm",
    at="address",
    why="outside a range a driver may read the old entry after it was told the new one",
)
@requires_lock(page_table_lock)
@atomic
def change_pte(mm: MM, address: int, pte: Pte) -> None:
    """Put ``pte`` into the page table, and tell the drivers in the same locked region."""
    mm.table_at(address).set(address, pte)
    for notifier in listeners(mm):
        notifier.change_pte(mm, address, pte)


@requires_lock(page_table_lock)
@atomic
def clear_young(mm: MM, address: int) -> bool:
    """Ask the drivers whether the page was used; nothing is unmapped, so no range is needed."""
    used = False
    for notifier in listeners(mm):
        used |= notifier.clear_young(mm, address)
    return used


# --- where callbacks run --------------------------------------------------------------


class _NoLock:
    """Something to acquire and to release that never keeps anybody waiting."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return True

    def release(self) -> None:
        pass


def _callbacks() -> AbstractContextManager[object]:
    """Stand for "drivers are called back here" in the order of locks.

    It comes after the locks that the caller holds, and before the locks that callbacks take.  So a
    caller who holds what some driver's callback takes is found out although the two never met: on
    a machine without that driver, or in another test.  The start holds it whether or not it has
    anybody to call.

    It keeps nobody out, so each use has an object of its own; what they share is the name.
    """
    return track(_NoLock(), name="mmu_notifier callbacks", kind="region")


def _non_block(notifier: Notifier, callback: str) -> AbstractContextManager[object]:
    """Hold a callback to not sleeping where no lock does that; reports call it by its name."""
    return atomic(f"{type(notifier).__name__}.{callback} in a non-blockable range")


def _end_without_blocking(notifiers: Iterable[Notifier], mm: MM, start: int, end: int) -> None:
    for notifier in notifiers:
        with _non_block(notifier, "range_end"):
            notifier.range_end(mm, start, end)
