"""Whole tables: planned as trees of runs, trained, and reported."""
