"""How far a model is from its frozen start: the exact KL, its gradient, and the start itself."""
