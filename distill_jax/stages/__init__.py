"""The stages of a run and the one loop that they share."""
