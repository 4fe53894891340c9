"""YAML to a validated spec; `_target_` to a model, a dataset, a loss."""
