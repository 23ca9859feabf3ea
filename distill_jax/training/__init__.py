"""State, updates, checkpoints, records and progress of a run."""
