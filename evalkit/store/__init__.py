"""A run folder: written while a run answers, read back by whoever looks at it later."""
