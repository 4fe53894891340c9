"""`bnoise init train.py`: a training script read by its syntax, and the config that it says."""
