"""A table of runs that share trunks: its plan, and the pool that trains it."""
