"""How it hooks into a Trainer: when to look, and in which order."""
