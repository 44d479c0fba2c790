"""A run on disk and as a process: its directory, log, checkpoints and end.

Nothing here knows a network, a loss or a data set.
"""
