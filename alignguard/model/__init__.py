"""A model spoken to and read: prompts, generation, forwards, loading. What looking at it changes is put back."""
