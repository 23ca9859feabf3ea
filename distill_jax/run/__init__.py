"""A run: its settings and plan, its directory, its data and models."""
