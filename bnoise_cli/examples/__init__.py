"""The models and datasets that configs/ name."""
