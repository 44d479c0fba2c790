"""One file a table: its rows, for `python -m tsla.experiments.sweep`."""
