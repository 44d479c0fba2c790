"""One file a table: its rows, for `python -m tsla sweep`."""
