"""Pure functions, numbers in, numbers out: no torch, no files, no console."""
