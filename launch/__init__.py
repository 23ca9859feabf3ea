"""Entry points: the main job and the generator of docs/config.md."""
