"""Words and pictures made from results, and nothing else."""
