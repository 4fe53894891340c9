"""The horizon: short training runs from one start, and the critical batch size that they show."""
