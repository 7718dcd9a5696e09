"""Hydra's side of evalkit: configurations composed, objects built from them, mistakes explained in one line."""
