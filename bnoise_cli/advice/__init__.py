"""From a result to reasons for doubt and recommendations."""
