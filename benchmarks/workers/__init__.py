"""One program a system: read a case, fit it, print one line of JSON."""
