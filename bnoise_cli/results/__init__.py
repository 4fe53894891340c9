"""What a measurement found: results put together from measurements, their doubts, and the stored files."""
