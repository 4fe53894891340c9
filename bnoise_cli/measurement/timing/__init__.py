"""How long the steps of training take."""
