"""The verdict on a planned batch size."""
