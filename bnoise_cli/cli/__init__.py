"""One thin command a file: reads the call, runs the measurement, prints and stores the result."""
