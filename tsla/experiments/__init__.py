"""Whole tables of runs, and what is said of them."""
