"""Who holds what: owners, their state, and the chain of what they are inside of.

The chain is one pointer, :attr:`OwnerState.cur`, into a private trie: a
:class:`Node` stands for "this owner holds this chain of classes and contexts".
To take a lock is one lookup of its step among the node's children; to release it
is to go back to the parent.  A lookup that finds nothing is the only thing that
ever costs more: it validates the new chain, once.

Invariants: only an owner's own thread writes its ``cur`` (anyone else leaves a
note in ``drops``); ``lock.node`` is the node that its acquisition made, and is
written only by who holds the lock; nodes are never shared between owners, so
``cur is lock.node`` says at once that a release is the expected one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, final

from ctxcheck.engine.classes import EVENT_LOOP, EVERYTHING, Step
from ctxcheck.engine.raw import get_ident, monotonic, thread_name
from ctxcheck.engine.sites import EMPTY, Trace, capture_frame

if TYPE_CHECKING:
    from types import CodeType

    from ctxcheck.engine.brackets import Bracket, Mark
    from ctxcheck.engine.classes import LockClass


class Node(dict["Step", "Node"]):
    """One position in an owner's trie; the dictionary holds its cached children.

    ``allows`` is what the owner may still do here (the intersection over the chain, down to the interrupting
    context that it is in), ``trace`` where this owner first took this chain, ``made_for`` a weak reference to the
    lock that it then took.  After a release in the middle the entries above hang elsewhere: each new node
    ``stands_for`` the one that the lock still points to.
    """

    __slots__ = ("_stands_for", "allows", "made_for", "parent", "state", "step", "trace")

    allows: int
    parent: Node
    state: OwnerState

    def __init__(
        self, parent: Node | None, step: Step, state: OwnerState, trace: Trace, *, stands_for: Node | None = None
    ) -> None:
        self.parent = self if parent is None else parent
        self._stands_for: Node | None = stands_for
        self.step: Step = step
        self.state = state
        self.allows = (EVERYTHING if parent is None or step.boundary else parent.allows) & ~step.takes
        self.trace: Trace = trace
        self.made_for: Callable[[], Any] | None = None

    def __missing__(self, step: Step) -> Node | None:
        return None

    __hash__ = object.__hash__  # type: ignore[assignment]  # identity, as for any position

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __repr__(self) -> str:
        return f"<Node {[n.step for n in self.chain()]}>"

    @property
    def stands_for(self) -> Node:
        """The node that the lock of this entry points to: this one, unless the chain was rehung."""
        # no reference to itself by default: a node would be garbage that only the collector frees
        return self if self._stands_for is None else self._stands_for

    def chain(self) -> Iterator[Node]:
        """The entries of this chain, innermost first, without the root."""
        node = self
        while node.parent is not node:
            yield node
            node = node.parent

    def inside(self) -> Iterator[Node]:
        """The entries since the interrupting context that this is in, if it is in one; else the whole chain.

        What a context interrupts depends on when it came: to most rules, its chain begins with it.
        """
        node = self
        while node.parent is not node and not node.step.boundary:
            yield node
            node = node.parent

    def scope(self) -> Iterator[Node]:
        """As :meth:`inside`, with the interrupting context itself."""
        for node in self.chain():
            yield node
            if node.step.boundary:
                return

    def held(self) -> Iterator[Node]:
        """The entries that have a class (locks, and what others wait for), innermost first; in an interrupting context,
        those taken in it."""
        return (node for node in self.inside() if node.step.lock_class is not None)

    def all_held(self) -> Iterator[Node]:
        """As :meth:`held`, with those that interrupted code holds."""
        return (node for node in self.chain() if node.step.lock_class is not None)

    def because(self, permission: int) -> Node | None:
        """The entry that took ``permission`` away: the outermost one that does, the event loop only if no other does.

        What an atomic section promises is kept or broken on any thread; a loop's thread may be blocked, at a cost.
        """
        found = loop = None
        for node in self.inside():
            if node.step is EVENT_LOOP:
                loop = node if permission & EVENT_LOOP.takes else None
            elif node.step.takes & permission:
                found = node
        return loop if found is None else found  # an empty node is false


class Void(Node):
    """The chain of an owner that isn't being checked: every step leads back to it.

    With it in ``cur`` the hot path runs unchanged and learns nothing, so that "off" and
    "not now" need no test there.
    """

    __slots__ = ()

    def __missing__(self, step: Step) -> Node:
        if step.lock_class is not None:
            self[step] = self  # found without a call the next time; classes are few and stay
        return self


class Owner:
    """A thread or a task: a serial number of our own, since idents are reused.  ``ident`` is the thread's."""

    __slots__ = ("ident", "kind", "name", "serial")

    def __init__(self, serial: int, ident: int, kind: str = "thread") -> None:
        self.serial: int = serial
        self.ident: int = ident
        self.kind: str = kind
        self.name: str | None = None

    def learn_name(self) -> None:
        """Look the name up if it isn't known yet: a thread is registered a little after it starts."""
        if self.name is None:
            self.name = thread_name(self.ident)

    @property
    def thread(self) -> Owner:
        """The thread that it is, or runs on."""
        return self

    def __str__(self) -> str:
        return f"{self.kind} '{self.name or f'{self.kind}-{self.serial}'}'"


@final
class Run:
    """Calls of one marked function from one place, inside an open bracket, with nothing but such calls in between.

    They are one moment of the bracket's ``history``, and counted by ``again``.  While its owner stands at ``node``,
    the ``bracket`` is open: another call of what is marked with ``mark``, from the same place (``code``, and the
    instruction under which it is found), is covered as the one before was.  It is over with the next other thing that
    happens to a bracket of this owner's, or of the same key: then ``node`` and ``history`` are None.
    """

    __slots__ = ("again", "bracket", "code", "history", "mark", "node")

    def __init__(self, mark: Mark | None, code: CodeType | None, again: Iterator[None], history: Any) -> None:
        self.mark: Mark | None = mark
        self.code: CodeType | None = code
        self.again: Iterator[None] = again
        self.history: Any = history
        self.bracket: Any = None
        self.node: Node | None = None


#: No owner stands here.
NO_RUN: Final = Run(None, None, iter(()), None)
#: Of an owner that hasn't made such a call since something else happened; never written to.
NO_RUNS: Final[dict[int, Run]] = {}


class OwnerState:
    """Everything mutable about one owner in one session.

    ``cur`` is its chain, ``drops`` the nodes that others released for it, ``instances`` the held locks
    of classes whose instances matter, ``waiting`` the lock that it is blocked on (``since`` then, by the
    monotonic clock, and ``until`` when, if it gives up by itself), ``brackets`` its
    open ranges, ``runs`` the calls in them that are only counted, by the instruction that calls, ``cached`` the nodes
    of its trie that have a child for each lock class.  ``engine`` is the validator that it reports to, or ``None``
    when off.  ``origin`` is what its steps count for (see :mod:`~ctxcheck.engine.ledger`), ``home`` what they do when
    it runs nothing for another; ``lent`` counts what it runs for others now, ``served``: it ever did.
    """

    __slots__ = (
        "__weakref__",
        "brackets",
        "cached",
        "cur",
        "drops",
        "ended",
        "engine",
        "finished",
        "home",
        "instances",
        "learned",
        "lent",
        "origin",
        "owner",
        "root",
        "runs",
        "served",
        "since",
        "until",
        "waiting",
    )  # fmt: skip

    def __init__(self, owner: Owner, engine: Any) -> None:
        self.owner: Owner = owner
        self.engine: Any = engine
        self.root: Node = Node(None, ROOT_STEP, self, EMPTY)
        self.cur: Node = self.root
        self.drops: deque[Node] = deque()
        self.instances: list[tuple[Node, Any]] = []
        self.waiting: Any = None
        self.since: float = 0.0
        self.until: float | None = None
        self.brackets: list[Bracket] = []
        self.runs: dict[int, Run] = NO_RUNS
        self.cached: dict[LockClass, list[Node]] = {}
        #: whether it was the first, or one of the first few, to take some chain of its trie
        self.learned: bool = False
        self.ended: bool = False
        self.origin: str = ""
        self.home: str = ""
        self.lent: int = 0
        #: whether what it runs for others is done but for telling so: who waits for it may go on by then
        self.finished: Callable[[], bool] | None = None
        self.served: bool = False

    def blocks_on(self, lock: Any, timeout: Any = None) -> None:
        """Note that it waits for ``lock``, for ``timeout`` seconds at most; undone by clearing ``waiting``."""
        self.since = now = monotonic()
        # anything else is for the method itself to refuse
        self.until = now + timeout if isinstance(timeout, (int, float)) and timeout >= 0 else None
        self.waiting = lock

    def stack(self, frames: dict[int, Any]) -> Trace:
        """What it is doing now, as far as that is known; ``frames`` are those of all threads."""
        return capture_frame(frames.get(self.owner.ident))

    def is_suspended(self) -> bool:
        """Whether it is a task that takes no step now."""
        return False

    def is_current(self) -> bool:
        """Whether the calling thread is this owner."""
        return self.owner.ident == get_ident() and not self.ended

    def own_held(self) -> list[Node]:
        """The locks that it holds itself, innermost first; in an interrupting context, those taken in it."""
        return list(self.cur.held())

    def all_own_held(self) -> list[Node]:
        """The locks that it holds itself, innermost first, also those that interrupted code holds."""
        return list(self.cur.all_held())

    def settle(self) -> None:
        """Take off the chain what others have released for this owner.

        A signal handler may raise at any call, or do the same: a note is taken off together with its entry, or not yet.
        """
        drops = self.drops
        while drops:
            node, before = drops[0], self.cur
            shorter = self._without(node)
            # no call from here on
            if self.cur is before and drops and drops[0] is node:
                del drops[0]
                if shorter is not None:
                    self.cur = shorter
                    if self.instances:
                        self._forget_instance(node)

    def unlink(self, node: Node) -> bool:
        """Take the entry that stands for ``node`` off the chain, wherever in it that is; returns whether it was there.

        For the owner's own thread only.  What was taken inside it stays held: it is hung on
        the shorter chain, in nodes that are never cached, so that a chain which was only ever
        reached by releasing in the middle is still validated when it is taken in full.
        """
        shorter = self._without(node)
        if shorter is None:
            return False
        self.cur = shorter
        if self.instances:
            self._forget_instance(node)
        return True

    def _without(self, node: Node) -> Node | None:
        """The chain without the entry that stands for ``node``; None if it isn't there."""
        above: list[Node] = []
        walk = self.cur
        while walk.stands_for is not node:
            if walk.parent is walk:
                return None
            above.append(walk)
            walk = walk.parent
        shorter = walk.parent
        for old in reversed(above):
            shorter = Node(shorter, old.step, self, old.trace, stands_for=old.stands_for)
        return shorter

    def _forget_instance(self, node: Node) -> None:
        self.instances = [pair for pair in self.instances if pair[0] is not node]

    def dissolve(self) -> int:
        """Take the trie apart, so that it is freed at once, also where the collector is off; returns its size."""
        size = 0
        nodes: list[Node] = [self.root, self.cur]
        self.cur = VOID
        self.root = VOID
        self.instances = []
        self.runs = NO_RUNS
        self.cached = {}
        while nodes:
            node = nodes.pop()
            size += len(node)
            nodes.extend(node.values())
            node.clear()
            if node.parent is node:
                node.parent = VOID
        return size

    def find(self, node: Node) -> Node | None:
        """Return the entry of the chain that stands for ``node``, if it is still on it."""
        return next((entry for entry in self.cur.chain() if entry.stands_for is node), None)


#: The step of every root; it is no lock and takes nothing away.
ROOT_STEP: Final = Step(None, None, 0)


class _Off(OwnerState):
    """The one state that everybody shares while nothing is being checked."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Owner(0, 0), None)
        self.cur = VOID


def _make_void() -> Void:
    owner_state: Any = None
    return Void(None, ROOT_STEP, owner_state, EMPTY)


#: Where an owner stands that isn't being checked.
VOID: Final[Node] = _make_void()
OFF: Final[OwnerState] = _Off()


@final
class Reentry:
    """In place of a re-entered lock's node: so that its release isn't the expected one, and is counted."""

    __slots__ = ("depth", "node")

    def __init__(self, node: Node) -> None:
        self.node: Node = node
        self.depth: int = 0

    @property
    def state(self) -> OwnerState:
        """The owner."""
        return self.node.state

    @property
    def step(self) -> Step:
        """As the node's."""
        return self.node.step


@final
class Unused:
    """In place of a node, until a lock whose name isn't known yet is first taken."""

    __slots__ = ("settle",)

    state: Any = None

    def __init__(self, settle: Callable[[Any], None]) -> None:
        self.settle: Callable[[Any], None] = settle

    def settle_for(self, lock: Any) -> None:
        """Give ``lock`` its class, now that it is first taken, and clear its node."""
        self.settle(lock)
        if lock.node is self:
            lock.node = None
