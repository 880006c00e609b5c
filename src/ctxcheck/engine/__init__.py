"""Facts and rules: the standard library only, no I/O, no patching, no rendering.

Read in this order: ``classes`` (what is locked), ``owner`` (who holds what), ``graph`` and
``verdict`` (orders, and what they prove), ``validator`` (the one writer), ``slowpath`` (acquire and
release where the hot path of ``ctxcheck.fastpath`` can't answer).
"""
