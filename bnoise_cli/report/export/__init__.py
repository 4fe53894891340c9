"""Results in the forms that other programs read."""

# Packages that a result can be logged to. Here, so that the help of a command can name them at once.
TRACKERS = ("tensorboard", "wandb", "mlflow")
