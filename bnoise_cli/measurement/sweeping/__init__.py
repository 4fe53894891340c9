"""The sweep: training runs at every batch size, to a target."""
