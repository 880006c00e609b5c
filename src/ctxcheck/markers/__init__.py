"""The markers: what a program says about its own functions, and what is checked because of it.

Read in this order: ``target`` (the function that is marked), ``shapes`` (the wrappers that decorators make), then
``contexts`` (``might_sleep``, ``atomic``, ``allow``), ``interrupts``, ``ranges`` with ``brackets``, ``named`` with
``needs``, and ``held``, which say what the wrappers do.

With ``CTXCHECK=0`` in the environment of the process every decorator hands back the function itself and every
call and ``with`` block does nothing; wrong use is refused all the same.
"""

from ctxcheck.markers.brackets import range_
from ctxcheck.markers.contexts import allow, atomic, might_sleep, nonblocking
from ctxcheck.markers.declare import declare_leaf, declare_order
from ctxcheck.markers.held import assert_held, assert_not_held, might_lock, requires_lock
from ctxcheck.markers.interrupts import interrupt, masked
from ctxcheck.markers.named import ambient, context, context_end, context_start, thread_role
from ctxcheck.markers.needs import assert_context, assert_no_context, forbids, requires
from ctxcheck.markers.ranges import range_end, range_start, within_range
from ctxcheck.markers.regions import might_enter, region

__all__ = [
    "allow",
    "ambient",
    "assert_context",
    "assert_held",
    "assert_no_context",
    "assert_not_held",
    "atomic",
    "context",
    "context_end",
    "context_start",
    "declare_leaf",
    "declare_order",
    "forbids",
    "interrupt",
    "masked",
    "might_enter",
    "might_lock",
    "might_sleep",
    "nonblocking",
    "range_",
    "range_end",
    "range_start",
    "region",
    "requires",
    "requires_lock",
    "thread_role",
    "within_range",
]
