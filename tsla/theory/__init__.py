"""What is proved of SGD, label smoothing and TSLA, and what a simulation shows.

The problem is one of a single number with every constant known: no network, no
data and no run belong here.
"""
