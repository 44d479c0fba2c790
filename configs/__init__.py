"""One small file per experiment; what they share is in `bases.py`."""
