"""The only place that touches torch: gradients, line evaluations, warm-up training, the probe."""
