"""A model spoken to and read: prompts, generation, forwards, loading. Nothing here changes a model for good."""
