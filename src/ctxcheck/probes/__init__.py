"""Probes: the standard library's own places where somebody waits, told to the engine as they are reached."""
