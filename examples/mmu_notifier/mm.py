"""Address spaces, page tables, and the operations that change them.

Two kinds of lock, for the two levels:

``mm.mmap_lock``
    A readers-writer lock over the layout of the address space.  Who holds it may sleep.
``table.lock``
    A spin lock over the entries of one page table.  Who holds it must not sleep.

The order is always the same: ``mmap_lock``, then the start of a range, then a page-table
lock; and back out the same way.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from notifier import (
    Notifier,
    WouldSleepError,
    change_pte,
    clear_young,
    invalidate_page,
    invalidate_range_end_nonblock,
    invalidate_range_start_nonblock,
    invalidating,
)
from rwlock import RWLock

from ctxcheck import SpinLock, might_sleep, requires_lock, track

PAGE: Final = 0x1000  # bytes of a page
TABLE: Final = 16 * PAGE  # bytes that one page table maps


class AddressError(Exception):
    """No mapping covers the address."""


class UseAfterFreeError(AssertionError):
    """A page was used after it had been freed: the accident that all the rules are to prevent."""


# --- physical pages -------------------------------------------------------------------


class Page:
    """A page of memory, which knows whether it has been given back."""

    _numbers = itertools.count()

    def __init__(self) -> None:
        self.number = next(self._numbers)
        self.freed = False

    def touch(self) -> None:
        """Use the page, as a processor or a device does."""
        if self.freed:
            raise UseAfterFreeError(f"page {self.number} was used after it had been freed")


#: What is read where nothing was written yet; shared by all, never freed.
ZERO_PAGE: Final = Page()


def alloc_page(wait: bool = True) -> Page:
    """Return a fresh page.  With ``wait`` it may sleep until another is freed, and says so.

    There is always a page in this model, so it never does sleep.  That doesn't matter:
    whoever calls it must be in a place where it could.
    """
    if wait:
        might_sleep()
    return Page()


def free_page(page: Page) -> None:
    """Give a page back; nobody may have it mapped any more."""
    if page is not ZERO_PAGE:
        page.freed = True


@dataclass(frozen=True, slots=True)
class Pte:
    """A page-table entry: where the page is, and whether it may be written."""

    page: Page
    writable: bool


class PageTable:
    """The entries of ``TABLE`` bytes of addresses, and the spin lock that makes them stable."""

    def __init__(self) -> None:
        self.lock = SpinLock(name="page_table.lock")
        self._entries: dict[int, Pte] = {}

    @requires_lock("self.lock")
    def get(self, address: int) -> Pte | None:
        return self._entries.get(address)

    @requires_lock("self.lock")
    def set(self, address: int, pte: Pte) -> None:
        self._entries[address] = pte

    @requires_lock("self.lock")
    def clear(self, address: int) -> Pte | None:
        return self._entries.pop(address, None)


# --- address spaces -------------------------------------------------------------------


class MM:
    """An address space.  All methods may sleep, except where it says otherwise."""

    def __init__(self) -> None:
        self.mmap_lock = track(RWLock(), name="mm.mmap_lock", kind="lock", shared=True)
        self.notifiers: tuple[Notifier, ...] = ()
        self._mappings: set[tuple[int, int]] = set()
        self._tables: dict[int, PageTable] = {}

    def table_at(self, address: int) -> PageTable:
        """Return the page table of ``address``; does not sleep."""
        number = address // TABLE
        table = self._tables.get(number)
        return table or self._tables.setdefault(number, PageTable())

    @might_sleep("waits for mmap_lock")
    def mmap(self, start: int, end: int) -> None:
        """Make [start, end) valid.  Pages come with the first faults."""
        with self.mmap_lock:
            self._mappings.add((start, end))

    @might_sleep("waits for mmap_lock, and for drivers")
    def munmap(self, start: int, end: int) -> None:
        """Undo ``mmap(start, end)`` and free its pages."""
        with self.mmap_lock:
            self._mappings.discard((start, end))
            with invalidating(self, start, end):
                pages = self._zap(start, end)
        for page in pages:
            free_page(page)

    @might_sleep("waits for mmap_lock and for memory")
    def fault(self, address: int, write: bool = False) -> Pte:
        """Map a page at ``address``, if there is none that will do, and return its entry.

        The entry may be out of date by the time the caller looks at it: only the page
        table's lock would keep it as it is.
        """
        with self.mmap_lock.shared():
            self._check_mapped(address)
            return self._make_writable(address) if write else self._make_present(address)

    @might_sleep("waits for mmap_lock, for memory and for drivers")
    def migrate(self, address: int) -> None:
        """Move what is at ``address`` to another page."""
        unused = new = alloc_page()
        table = self.table_at(address)
        with self.mmap_lock.shared(), invalidating(self, address, address + PAGE), table.lock:
            pte = table.get(address)
            if pte is not None and pte.writable:
                table.clear(address)
                invalidate_page(self, address)
                table.set(address, Pte(new, writable=True))
                unused = pte.page
        free_page(unused)

    def reap(self, start: int, end: int) -> bool:
        """Free the pages of [start, end) without waiting for anybody; return whether it worked."""
        if not self.mmap_lock.acquire(shared=True, blocking=False):
            return False
        try:
            try:
                invalidate_range_start_nonblock(self, start, end)
            except WouldSleepError:
                return False
            try:
                pages = self._zap(start, end)
            finally:
                invalidate_range_end_nonblock(self, start, end)
        finally:
            self.mmap_lock.release()
        for page in pages:
            free_page(page)
        return True

    @might_sleep("waits for mmap_lock")
    def count_young(self, start: int, end: int) -> int:
        """Return how many pages of [start, end) a device used since the last time."""
        young = 0
        with self.mmap_lock.shared():
            for address in range(start, end, PAGE):
                with self.table_at(address).lock:
                    young += clear_young(self, address)
        return young

    @requires_lock("self.mmap_lock")
    def _check_mapped(self, address: int) -> None:
        if not any(start <= address < end for start, end in self._mappings):
            raise AddressError(hex(address))

    @requires_lock("self.mmap_lock")
    def _zap(self, start: int, end: int) -> list[Page]:
        """Clear the entries of a range that is being invalidated; return the pages to free.

        They may be freed only after the range has ended: drivers may look at them until then.
        """
        pages: list[Page] = []
        for address in range(start, end, PAGE):
            table = self.table_at(address)
            with table.lock:
                pte = table.clear(address)
                if pte is not None:
                    invalidate_page(self, address)
                    pages.append(pte.page)
        return pages

    def _make_present(self, address: int) -> Pte:
        table = self.table_at(address)
        with table.lock:
            pte = table.get(address)
            if pte is None:
                # Nobody can have remembered an entry that was empty: no need to notify.
                pte = Pte(ZERO_PAGE, writable=False)
                table.set(address, pte)
            return pte

    def _make_writable(self, address: int) -> Pte:
        table = self.table_at(address)
        with table.lock:
            pte = table.get(address)
            if pte is not None and pte.writable:
                return pte
        new = alloc_page()  # before the lock is taken again, since it may sleep
        with invalidating(self, address, address + PAGE), table.lock:
            pte = table.get(address)
            if pte is not None and pte.writable:  # another thread was faster
                free_page(new)
                return pte
            pte = Pte(new, writable=True)
            change_pte(self, address, pte)
            return pte
