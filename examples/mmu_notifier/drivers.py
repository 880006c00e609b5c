"""Two secondary MMUs: one that keeps the rules, and one that breaks most of them."""

from __future__ import annotations

from mm import MM, Pte
from notifier import Answer, Notifier

from ctxcheck import Event, Lock, SpinLock, might_sleep, requires_lock


class RangeCounter:
    """Tells a driver whether what it looked up may already be out of date.

    Look up with nothing locked, then ask, then use the answer, and ask and use under the
    same lock that the callbacks take::

        sequence = counter.read_begin()
        ...                                   # look the page up; this may sleep
        with lock:
            if not counter.read_retry(sequence):
                ...                           # no range was open meanwhile: use it

    Open ranges are counted.  A flag would not do: they nest, and many threads have them.
    """

    def __init__(self, lock: Lock | SpinLock) -> None:
        self.lock = lock
        self._none_open = Event()
        self._none_open.set()
        self._open = 0
        self._sequence = 0

    @requires_lock("self.lock")
    def range_opened(self) -> None:
        self._open += 1
        self._none_open.clear()

    @requires_lock("self.lock")
    def range_closed(self) -> None:
        self._open -= 1
        self._sequence += 1
        if not self._open:
            self._none_open.set()

    @might_sleep("waits until no range is open")
    def read_begin(self) -> int:
        """Wait until no range is open, and return the number to ask with."""
        while True:
            self._none_open.wait()  # with nothing locked
            with self.lock:
                if not self._open:
                    return self._sequence

    @requires_lock("self.lock")
    def read_retry(self, sequence: int) -> bool:
        """Return whether a range was open since ``read_begin()``: if so, start again."""
        return self._open > 0 or self._sequence != sequence


class MirrorMMU(Notifier):
    """A well-behaved secondary MMU: mirrors the page tables of one address space.

    ``lock`` guards the mirrored entries.  The page-level callbacks need it, so it is a spin
    lock.  ``commands`` guards the way to the device, which is slow, so it may be waited
    for, but only at the address level.
    """

    def __init__(self, mm: MM) -> None:
        self.mm = mm
        self.lock = SpinLock(name="MirrorMMU.lock")
        self.commands = Lock(name="MirrorMMU.commands")
        self._counter = RangeCounter(self.lock)
        self._entries: dict[int, Pte] = {}
        self._used: set[int] = set()

    # What the device does.

    def access(self, address: int, write: bool = False) -> None:
        """Use the page at ``address``; may sleep, if it isn't mirrored yet."""
        while not self._access_mirrored(address, write):
            self._fault(address, write)

    def _access_mirrored(self, address: int, write: bool) -> bool:
        with self.lock:
            pte = self._entries.get(address)
            if pte is None or (write and not pte.writable):
                return False
            pte.page.touch()
            self._used.add(address)
            return True

    def _fault(self, address: int, write: bool) -> None:
        sequence = self._counter.read_begin()
        pte = self.mm.fault(address, write)  # with no lock held
        with self.lock:
            if not self._counter.read_retry(sequence):
                self._entries[address] = pte

    # What the address space tells us.

    def range_start(self, mm: MM, start: int, end: int, blockable: bool) -> Answer:
        """Stop mapping pages.  What is mapped stays so until the page level says otherwise."""
        if not self.commands.acquire(blocking=blockable):
            return "again"
        try:
            with self.lock:
                self._counter.range_opened()
        finally:
            self.commands.release()
        return "done"

    def range_end(self, mm: MM, start: int, end: int) -> None:
        with self.lock:
            self._counter.range_closed()

    def invalidate_page(self, mm: MM, address: int) -> None:
        with self.lock:
            self._entries.pop(address, None)

    def change_pte(self, mm: MM, address: int, pte: Pte) -> None:
        with self.lock:
            if address in self._entries:
                self._entries[address] = pte

    def clear_young(self, mm: MM, address: int) -> bool:
        with self.lock:
            used = address in self._used
            self._used.discard(address)
            return used


class SleepyMMU(Notifier):
    """A secondary MMU that was written without looking at who calls it.

    Nothing of this goes wrong in a quiet moment.  That is what makes it dangerous.
    """

    def __init__(self, mm: MM) -> None:
        self.mm = mm
        self.mutex = Lock(name="SleepyMMU.mutex")
        self.commands = Lock(name="SleepyMMU.commands")
        self._counter = RangeCounter(self.mutex)
        self._entries: dict[int, Pte] = {}

    @might_sleep("waits until the device has answered")
    def flush(self) -> None:
        """Let the device forget what it has cached."""

    def access(self, address: int) -> None:
        sequence = self._counter.read_begin()
        pte = self.mm.fault(address)
        # Wrong: what is asked without the mutex is no longer true when the mutex is taken.
        if not self._counter.read_retry(sequence):
            with self.commands, self.mutex:
                self._entries[address] = pte

    def range_start(self, mm: MM, start: int, end: int, blockable: bool) -> Answer:
        # Wrong: waits for the mutex although the range may be non-blockable.
        with self.mutex:
            self._counter.range_opened()
            # Wrong: access() takes these two the other way round.
            if blockable:
                with self.commands:
                    self.flush()
        return "done"

    def range_end(self, mm: MM, start: int, end: int) -> None:
        with self.mutex:
            self._counter.range_closed()

    def invalidate_page(self, mm: MM, address: int) -> None:
        # Wrong: waits for the mutex, and then for the device, under a page-table lock.
        with self.mutex:
            self._entries.pop(address, None)
        self.flush()
