"""The config of a run: its fields, their checks, its forms, its command line.

Nothing here reads data or trains.
"""
