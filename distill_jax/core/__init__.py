"""Foundations without knowledge of models or mathematics: errors, settings, randomness, mesh."""
