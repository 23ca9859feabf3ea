"""Configurations: one file a stage, presets in presets.py."""
