"""What is proved of SGD, label smoothing and TSLA, and what a simulation shows.

`python -m tsla theory` prints how many iterations each needs; `--out=DIR` holds
that against a problem with every constant known and writes a page.
"""
