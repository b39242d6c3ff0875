"""Logs that others read: a record in the formats of other evaluation tools."""
