"""The held chain is always what is really held, in the order in which it was taken."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import ctxcheck
from ctxcheck import fastpath
from ctxcheck.engine.classes import BLOCK, EVERYTHING, FREE, LOCK, SPIN, WITH, ContextStep, LockClass
from ctxcheck.engine.owner import OFF, VOID, Node, Owner, OwnerState
from ctxcheck.engine.sites import EMPTY
from ctxcheck.session import Session
from tests.oracle import in_thread

KINDS = {"lock": ctxcheck.Lock, "rlock": ctxcheck.RLock, "spin": ctxcheck.SpinLock}


class Hold:
    """What the model knows of one held lock: how often it was entered, and in which session it was taken."""

    def __init__(self, index: int, session: Session | None) -> None:
        self.index = index
        self.depth = 1
        self.session = session


class HeldLocks(RuleBasedStateMachine):
    """Random programs of one thread, with other threads, the collector and sessions at work around it."""

    numbers = itertools.count(1).__next__

    def __init__(self) -> None:
        super().__init__()
        self.made = HeldLocks.numbers()
        self.kinds = [*KINDS, "lock", "rlock", "lock"]
        self.locks = [self.make(i) for i in range(len(self.kinds))]
        self.holds: list[Hold] = []
        self.sessions: list[Session] = []
        self.over: list[Session] = []
        self.refused = False
        self.lost = False
        self.begin()

    def make(self, index: int) -> Any:
        return KINDS[self.kinds[index]](name=f"{self.kinds[index]}{index}.{self.made}")

    def hold(self, index: int) -> Hold | None:
        return next((h for h in self.holds if h.index == index), None)

    def take(self, index: int, how: str) -> None:
        lock = self.locks[index]
        held = self.hold(index)
        if held is not None and self.kinds[index] != "rlock":
            # the only thing that one may ask for here
            assert lock.acquire(False) is False
            return
        if how == "with":
            assert lock.__enter__() is True
        elif how == "acquire":
            assert lock.acquire() is True
        elif how == "timed":
            assert lock.acquire(timeout=60) is True
        else:
            assert lock.acquire(False) is True
        if held is not None:
            held.depth += 1
        else:
            self.holds.append(Hold(index, self.sessions[-1] if self.sessions else None))

    @rule(index=st.integers(0, 5), how=st.sampled_from(["with", "acquire", "timed", "try"]))
    def acquire(self, index: int, how: str) -> None:
        self.take(index, how)

    @rule(which=st.integers(0, 5), by_with=st.booleans())
    def release(self, which: int, by_with: bool) -> None:
        if not self.holds:
            return
        hold = self.holds[which % len(self.holds)]
        lock = self.locks[hold.index]
        if by_with:
            lock.__exit__(None, None, None)
        else:
            lock.release()
        hold.depth -= 1
        if not hold.depth:
            self.holds.remove(hold)

    @rule(which=st.integers(0, 5))
    def release_in_another_thread(self, which: int) -> None:
        if not self.holds:
            return
        hold = self.holds[which % len(self.holds)]
        lock, kind = self.locks[hold.index], self.kinds[hold.index]
        if kind == "lock":
            in_thread(lock.release)
            self.holds.remove(hold)
        elif kind == "rlock":
            with pytest.raises(RuntimeError):
                in_thread(lock.release)
            self.refused = True
        # a SpinLock refuses within the session that saw it taken
        elif hold.session is not None and hold.session is (self.sessions[-1] if self.sessions else None):
            with pytest.raises(RuntimeError):
                in_thread(lock.release)
            self.refused = True

    @rule(index=st.integers(0, 5))
    def forget(self, index: int) -> None:
        """The lock goes, held or not, and another takes its place."""
        hold = self.hold(index)
        gone = weakref.ref(self.locks[index])
        self.locks[index] = self.make(index)
        assert gone() is None
        if hold is not None:
            self.holds.remove(hold)
            self.lost = True

    @rule(index=st.integers(0, 5))
    def fork_reinit(self, index: int) -> None:
        hold = self.hold(index)
        if self.kinds[index] != "spin" and hold is not None:
            self.locks[index]._at_fork_reinit()
            self.holds.remove(hold)
            self.lost = True

    @rule()
    def begin(self) -> None:
        if len(self.sessions) < 3:
            self.sessions.append(Session())
            self.sessions[-1].start()

    @rule(which=st.integers(0, 2))
    def end(self, which: int) -> None:
        """Sessions end in any order."""
        if self.sessions:
            session = self.sessions.pop(which % len(self.sessions))
            session.stop()
            self.over.append(session)

    @precondition(lambda self: self.sessions)
    @rule()
    def collect(self) -> None:
        gc.collect(0)

    @invariant()
    def the_chain_is_what_is_held(self) -> None:
        session = self.sessions[-1] if self.sessions else None
        expected = [self.locks[h.index] for h in self.holds if h.session is session and session is not None]
        state = fastpath.current()
        assert ctxcheck.held_locks() == [lock.step.lock_class.name for lock in expected]
        assert (state.engine is None) == (session is None)
        if session is not None:
            chain = list(state.cur.chain())[::-1]
            for entry, lock in zip(chain, expected, strict=True):
                node = lock.node if type(lock.node) is Node else lock.node.node
                assert entry.stands_for is node
                assert entry.state is state
            spinning = any(lock.step.lock_class.kind is SPIN for lock in expected)
            assert bool(state.cur.allows & BLOCK) is not spinning
        for index, lock in enumerate(self.locks):
            held = self.hold(index)
            if self.kinds[index] == "rlock":
                assert lock._recursion_count() == (held.depth if held else 0)
            else:
                assert lock.locked() is (held is not None)

    def teardown(self) -> None:
        try:
            while self.holds:
                hold = self.holds.pop()
                for _ in range(hold.depth):
                    self.locks[hold.index].release()
        finally:
            while self.sessions:
                self.end(0)
        for session in self.over:
            assert not session.engine.broken
            told = {v.rule for v in session.violations} - {"CTX001", "CTX303"}
            # spin locks are really held here, over locks that may sleep
            assert told <= {"CTX102"} | ({"CTX302"} if self.refused else set()) | ({"CTX304"} if self.lost else set())


TestHeldLocks = HeldLocks.TestCase
TestHeldLocks.settings = settings(derandomize=True, deadline=None, max_examples=120, stateful_step_count=40)


# --- the pieces ------------------------------------------------------------------------------


def state_with(*names: str) -> tuple[OwnerState, dict[str, Node]]:
    state = OwnerState(Owner(1, 0), object())
    nodes = {}
    for name in names:
        step = LockClass(name, name, SPIN if name == "S" else LOCK).step(WITH)
        state.cur = nodes[name] = Node(state.cur, step, state, EMPTY)
    return state, nodes


def held(state: OwnerState) -> str:
    return "".join(n.step.lock_class.name for n in state.cur.held() if n.step.lock_class)[::-1]


@pytest.mark.parametrize("order", list(itertools.permutations("ABC")))
def test_unlinking_in_any_order_leaves_the_rest_in_order(order: tuple[str, ...]) -> None:
    state, nodes = state_with(*"ABC")
    left = "ABC"
    for name in order:
        assert state.unlink(nodes[name])
        left = left.replace(name, "")
        assert held(state) == left
        assert not state.unlink(nodes[name]), "it is gone"
        for other in left:
            entry = state.find(nodes[other])
            assert entry is not None
            assert entry.stands_for is nodes[other]
    assert state.cur is state.root


def test_what_is_left_after_a_release_in_the_middle_is_never_cached() -> None:
    state, nodes = state_with(*"ABC")
    state.unlink(nodes["A"])
    assert not state.root
    assert state.cur.parent.parent is state.root
    assert state.cur.parent not in state.root.values()


def test_permissions_are_the_chains_and_come_back_with_a_release_in_the_middle() -> None:
    state, nodes = state_with(*"ASB")
    assert state.cur.allows == 0
    because = state.cur.because(BLOCK)
    assert because is nodes["S"]
    state.unlink(nodes["S"])
    assert state.cur.allows == EVERYTHING - FREE, "others wait for A and B"
    assert state.cur.because(BLOCK) is None
    assert held(state) == "AB"


def test_what_others_released_is_settled_in_any_order_and_twice_does_no_harm() -> None:
    state, nodes = state_with(*"ABC")
    state.drops.extend([nodes["B"], nodes["A"], nodes["B"]])
    state.settle()
    assert held(state) == "C"
    assert not state.drops


def test_contexts_stand_on_the_chain_between_locks() -> None:
    state, nodes = state_with(*"AB")
    context = ContextStep("atomic", "handler", EVERYTHING)
    state.cur = Node(state.cur, context, state, EMPTY)
    assert held(state) == "AB"
    assert state.cur.allows == 0
    state.unlink(nodes["A"])
    assert [type(n.step).__name__ for n in state.cur.chain()] == ["ContextStep", "Step"]
    assert state.cur.allows == 0


def test_a_trie_is_freed_at_once_when_it_is_dissolved() -> None:
    state, nodes = state_with(*"ABC")
    size = 0
    for name in "ABC":
        nodes[name].parent[nodes[name].step] = nodes[name]
        size += 1
    kept = [weakref.ref(state)]
    root = state.root
    assert state.dissolve() == size
    assert state.cur is VOID
    assert not root
    del state, root, nodes
    gc.disable()
    try:
        assert kept[0]() is None
    finally:
        gc.enable()


def test_nodes_compare_by_identity_although_they_are_dictionaries() -> None:
    state, nodes = state_with(*"AB")
    twin = Node(state.root, nodes["A"].step, state, EMPTY)
    assert twin != nodes["A"]
    assert nodes["A"] == nodes["A"]
    assert len({twin, nodes["A"], nodes["B"]}) == 3


def test_an_owner_that_isnt_checked_stands_nowhere_and_everything_is_allowed() -> None:
    step = LockClass("x", "x", SPIN).step(WITH)
    assert OFF.cur is VOID
    assert VOID[step] is VOID
    assert VOID.parent is VOID
    assert VOID.allows == EVERYTHING
    assert list(VOID.chain()) == []
    assert OFF.engine is None
