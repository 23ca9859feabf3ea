"""Pure functions of arrays: rewards, advantages, losses and divergences."""
