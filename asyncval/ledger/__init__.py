"""The record of what was found, queued, and validated."""
