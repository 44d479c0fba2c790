"""Finished runs become results, statistics, figures and a report.

Nothing here trains, and how a page is written is not decided here.
"""
