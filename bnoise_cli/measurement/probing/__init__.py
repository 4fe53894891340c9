"""The probe: updates at every batch size, and the loss along each."""
