"""Checked locks: drop-in for ``threading``'s, and stand-ins for anything else that can be held."""
