"""The config of a run: its fields, checks, forms and command line."""
