"""What audits prove: drops, evidence over all looks, and the verdict, which others only word."""
