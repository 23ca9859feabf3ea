"""Running model-written programs in confined processes."""

from distill_jax.sandbox.limits import Layers, Limits, Result, SandboxError
from distill_jax.sandbox.pool import Sandbox
from distill_jax.sandbox.probe import Probe, probe

__all__ = ["Layers", "Limits", "Probe", "Result", "Sandbox", "SandboxError", "probe"]
