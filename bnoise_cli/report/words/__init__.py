"""Words: what each section of a report says."""
