"""A run on disk and as a process: its directory, log, checkpoints and end.

Nothing here trains: no network, no loss, no data set.
"""
