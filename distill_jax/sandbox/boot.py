"""Starts one module of the project in a fresh interpreter, without any package's __init__.

    python -s -P -S boot.py MODULE ARGUMENT...

A worker holds only what it needs: less memory to copy in a fork, less for a program to find.
"""

import importlib
import os
import sys
from types import ModuleType

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def bare_packages(module: str) -> None:
    """Enters the packages above `module`, and the sandbox's, as empty packages with a path."""
    for inner in (module, "distill_jax.sandbox.boot"):
        parts = inner.split(".")
        for length in range(1, len(parts)):
            name = ".".join(parts[:length])
            package = ModuleType(name)
            package.__path__ = [os.path.join(ROOT, *parts[:length])]
            sys.modules.setdefault(name, package)


if __name__ == "__main__":
    bare_packages(sys.argv[1])
    importlib.import_module(sys.argv[1]).main(sys.argv[2:])
