"""Words, pictures and exports of results."""
