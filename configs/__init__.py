"""Hydra's configuration files, found as pkg://evalkit.configs."""
