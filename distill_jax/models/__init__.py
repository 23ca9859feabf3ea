"""Dense models in flax.nnx: configuration, forward pass, LoRA, caches and interchange."""
