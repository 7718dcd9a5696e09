"""Backends answer requests: the engine, the plain reference, outputs made elsewhere, scripted ones."""
