"""Values, rules and numbers: no files, no clock, no logging, no torch."""
