"""A table of runs that share trunks: its plan, and the pool that trains it.

One run is trained by `tsla.training`; what runs found is told by `tsla.report`.
"""
