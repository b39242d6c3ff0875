"""What people read: the HTML report, the terminal, the alarm, the trust card. Nothing is computed here that others need."""
