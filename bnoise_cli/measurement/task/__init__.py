"""A training task: its model, loss and data on the devices at hand, as gradients and losses of chosen examples."""
