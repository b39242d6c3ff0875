"""What an answer is worth: a status and a score, by rules, or by scorers that people give."""
