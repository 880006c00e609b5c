"""Run a good driver under real threads, then show what a bad one and a bad caller get told.

Run it as ``ctxcheck run examples/mmu_notifier``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from drivers import MirrorMMU, SleepyMMU
from mm import MM, PAGE, AddressError
from notifier import invalidate_page, invalidate_range_end, invalidate_range_start, register, unregister

ROUNDS = 100
HEAP = (0x10000, 0x10000 + 8 * PAGE)  # stays mapped
SCRATCH = (0x40000, 0x40000 + 4 * PAGE)  # comes and goes


def run_threads(**work: Callable[[], None]) -> None:
    """Run each function in a thread of its name, all at once; pass on what one of them raises."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # whatever it is, the main thread has to hear of it
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,), name=name) for name, function in work.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def good_driver() -> None:
    """Let a device use memory that four other threads map, unmap, move and free."""
    mm = MM()
    mirror = MirrorMMU(mm)
    register(mm, mirror)
    mm.mmap(*HEAP)

    def device() -> None:
        for turn in range(ROUNDS):
            for start, end in (HEAP, SCRATCH):
                for address in range(start, end, PAGE):
                    with suppress(AddressError):  # it may be unmapped just now
                        mirror.access(address, write=turn % 2 == 0)

    def process() -> None:
        for turn in range(ROUNDS):
            mm.mmap(*SCRATCH)
            mm.fault(SCRATCH[0], write=True)
            mm.fault(HEAP[0] + turn % 8 * PAGE, write=True)
            mm.munmap(*SCRATCH)

    def compaction() -> None:
        for turn in range(ROUNDS):
            mm.migrate(HEAP[0] + turn % 8 * PAGE)

    def oom_reaper() -> None:
        for _ in range(ROUNDS):
            mm.reap(HEAP[0], HEAP[0] + 2 * PAGE)

    def page_aging() -> None:
        for _ in range(ROUNDS):
            mm.count_young(*HEAP)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # seconds; so short that the threads meet in all sorts of places
    try:
        run_threads(device=device, process=process, compaction=compaction, oom_reaper=oom_reaper, page_aging=page_aging)
    finally:
        sys.setswitchinterval(interval)
    unregister(mm, mirror)
    print(f"  {ROUNDS * 12} accesses by the device, while its memory was unmapped, moved and reaped:")
    print("  no page was used after it had been freed")


def bad_driver() -> None:
    """Let the device, the process and the reaper do one harmless thing each, one after the other."""
    mm = MM()
    sleepy = SleepyMMU(mm)
    register(mm, sleepy)
    mm.mmap(*HEAP)
    mm.mmap(*SCRATCH)

    def process() -> None:
        mm.fault(SCRATCH[0])
        mm.munmap(*SCRATCH)

    def oom_reaper() -> None:
        mm.reap(*HEAP)

    print("  the device uses a page ...")
    run_threads(device=lambda: sleepy.access(HEAP[0]))
    print("  the process reads another page and unmaps it ...")
    run_threads(process=process)
    print("  memory runs out, and the first page is reaped ...")
    run_threads(oom_reaper=oom_reaper)
    print("  nothing went wrong, this time")


def bad_caller() -> None:
    """Break the rules of the callers in an address space that nobody listens to."""
    mm = MM()
    start, end = HEAP
    table = mm.table_at(start)

    print("  a range is ended before its last page is invalidated ...")
    invalidate_range_start(mm, start, end)
    invalidate_range_end(mm, start, end)
    with table.lock:
        invalidate_page(mm, end - PAGE)

    print("  a range is ended under the page-table lock ...")
    invalidate_range_start(mm, start, end)
    with table.lock:
        invalidate_page(mm, start)
        invalidate_range_end(mm, start, end)
    print("  nobody is told anything: there is no driver")


def main() -> None:
    print("a good driver, with five threads at work:")
    good_driver()
    print("a bad driver, one thread at a time:")
    bad_driver()
    print("a bad caller, and no driver at all:")
    bad_caller()


if __name__ == "__main__":
    main()
