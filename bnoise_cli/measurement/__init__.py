"""The only place that touches torch; tasks and their passes first, then what is built, timed, probed and swept."""
