"""Code that runs inside a sandbox and is sent there: standard library only, no module imports another."""
