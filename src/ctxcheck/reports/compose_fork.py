"""Reports on forks while another thread holds a lock: CTX306."""

from __future__ import annotations

from ctxcheck.engine.findings import ForkFacts
from ctxcheck.reports.draft import Draft, here


def write_fork(draft: Draft, facts: ForkFacts) -> None:
    """CTX306."""
    finding = draft.finding
    lock = draft.quote(facts.lock_class)
    by, holder = draft.owner(facts.by), draft.owner(facts.holder)
    fork = f"{by} forks while {holder} holds {lock}"
    acquired = f"{lock} was {here(exact=False)} by {holder}"
    if facts.blocked:
        draft.message = f"deadlock in a forked child: it waits for {lock}, which {holder} held at the fork"
        draft.site("now", finding.trace, f"the child waits for {lock} here, and nobody can release it")
        draft.site("earlier", facts.forked, fork)
        draft.site("held_now", facts.held.trace, acquired)
    else:
        doubt = " (unlikely: the child has not said whether it puts that right)" if facts.unanswered else ""
        draft.message = f"fork with a held lock: {fork}, and nothing makes it anew in the child{doubt}"
        draft.site("now", finding.trace, f"{by} forks here")
        draft.site("held_now", facts.held.trace, acquired)
    if facts.blocked:
        draft.stack("stack in the child", finding.owner, finding.trace)
    draft.stack("stack of the fork", facts.by, facts.forked)
    draft.stack("stack of the holder at the fork", facts.holder, facts.now)
    draft.note(f"{holder} does not exist in the child: there {lock} stays held for ever, and its data may be torn")
    if facts.unanswered:
        draft.note("the child has ended, or is stuck, before all functions of `os.register_at_fork` had run in it")
    elif not facts.blocked:
        draft.note(
            f"no function of `os.register_at_fork` had initialised, replaced or released {lock} in the child; that one "
            f"hangs if it acquires {lock}, and does no harm if it leaves or executes another program before that"
        )
    draft.made_at([facts.lock_class])
    draft.help(
        "start processes with another method than fork: `multiprocessing.set_start_method('forkserver')` or `'spawn'`, "
        "`subprocess` for other programs"
    )
    draft.help("fork before any thread is started")
    draft.help(
        f"make {lock} anew in the child, and what it protects: `os.register_at_fork(after_in_child=...)`; or acquire "
        "it `before` the fork, and release it `after_in_parent` and `after_in_child`"
    )
    draft.help("if the child has nothing else to do, let it execute another program at once")
    draft.allow_line(facts.forked)
