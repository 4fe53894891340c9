"""The door from Python: measurements of live objects, and what can be done with their results."""
