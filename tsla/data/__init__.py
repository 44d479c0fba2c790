"""Everything that becomes arrays: data sets, batches, augmentation.

Nothing here knows a network, a loss or a run.
"""
