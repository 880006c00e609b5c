"""Real runs of pytest, with the plugin on and off."""
