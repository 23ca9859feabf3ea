"""Sampling from the student: decode loop, rollouts and the batches made of them."""
