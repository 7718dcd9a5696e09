"""The command line's tools, one file each.

Every module has `parser()`, the command's arguments, and `run(options)`, which does the work and returns the exit
code. Errors are raised as EvalkitError; `evalkit.cli` prints them.
"""
