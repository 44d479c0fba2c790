"""How good a model is: metrics computed from logits."""
