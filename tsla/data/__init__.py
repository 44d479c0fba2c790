"""Everything that becomes arrays: sets, sources, batches, views, caches.

What a network sees of an image is decided in `pipeline`; no network, loss or
run is known here.
"""
