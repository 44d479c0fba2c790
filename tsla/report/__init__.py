"""Finished runs become results, statistics, figures and a report."""
