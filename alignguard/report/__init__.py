"""What people read: the HTML report, the terminal, the alarm. Nothing is computed here that others need."""
