"""Rewards of a rollout: the teacher's intrinsic reward, verified correctness, their combination."""
