"""An OpenAI-compatible endpoint for a model: chat, completions, log-probabilities of prompts."""
