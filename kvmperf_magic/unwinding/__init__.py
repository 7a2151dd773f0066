"""User callchains that the kernel did not walk: made of stack dumps, branches, later records."""
