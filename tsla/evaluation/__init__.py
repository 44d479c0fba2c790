"""What a network is worth, from logits and labels alone.

No network, file or device is known here.
"""
