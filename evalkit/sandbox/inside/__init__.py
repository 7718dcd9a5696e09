"""Code that runs inside a sandbox, sent there as source: standard library only, and no module imports another."""
