"""Finished runs become tables, statistics, figures and a page."""
