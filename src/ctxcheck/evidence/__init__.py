"""What a session learned, as plain data, and back: so that processes, shards and runs can be judged together.

:func:`dump` makes a document of dictionaries, lists, strings and numbers, :func:`load` puts any number of them together
into a :class:`~ctxcheck.engine.union.Union`, whose ``findings()`` are those that all of them make together.  Both
``pytest``'s workers and ``ctxcheck combine`` go by it, and so does a run of one process: the same evidence gives the
same findings, however it was split.

Everything is in tables, and refers to other tables by index: a program has many more orders than places.  Places become
code objects that can only be looked at (:func:`_scope`), so that whatever shows a finding shows one that came from
afar, too.

Nothing in a document is trusted: what doesn't fit is refused in one line.  Names of files are used to show source
lines; who loads what he doesn't know gives a ``file`` that says under which name each is to be looked for.

Left out: what goes by instances (CTX003), and what was found on the spot; those are told by the process that saw them.
"""

from __future__ import annotations

from ctxcheck.evidence.format import SCHEMA_VERSION, Document, EvidenceError
from ctxcheck.evidence.reading import load
from ctxcheck.evidence.writing import dump

__all__ = ["SCHEMA_VERSION", "Document", "EvidenceError", "dump", "load"]
