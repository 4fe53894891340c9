"""From a config to a task: models, datasets, checkpoints, optimizers."""
