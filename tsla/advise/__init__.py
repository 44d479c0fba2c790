"""Whether to smooth on one's own data, how strongly, and until when.

A plan is written before the first run, a screen of a few seeds chooses, fresh
seeds confirm on other images, and a verdict says what was told from noise.
"""
