"""Sandboxes run a candidate program and say whether it passed."""
