"""The algorithm: step, optimiser, devices, where a run begins, and the loop.

How a run lies on the disk and ends as a process is the business of
`tsla.runs`; which runs there are, that of `tsla.sweep`.
"""
