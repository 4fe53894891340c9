"""Training runs: single steps, and several runs side by side."""
