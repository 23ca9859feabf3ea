"""Entry points."""

from distill_jax.core.host_memory import keep_freed_memory

keep_freed_memory()  # before the libraries start their threads
