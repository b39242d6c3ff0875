"""What is on disk of a run, and how a record is read back or taken up again."""
