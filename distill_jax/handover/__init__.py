"""A trained model handed over: a directory for other tools, its model card, the hub."""
