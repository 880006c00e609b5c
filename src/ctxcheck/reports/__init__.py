"""Findings as text, JSON, one-liners and rule pages.

A renderer takes :class:`~ctxcheck.engine.violations.Violation` objects and returns strings or
plain data.  None of them reads a source file, writes anywhere or asks for the terminal:
what a report needs is in the violation, and the caller decides on colour and destination.
"""
