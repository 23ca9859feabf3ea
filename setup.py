"""Packaging of distill_jax. Tool settings live in pyproject.toml.

Only the library is installed. The programs of launch/ read configs/, so they run from a checkout,
as `python -m launch.NAME`; there are no console scripts.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

INIT = Path(__file__).parent / "distill_jax" / "__init__.py"
VERSION = re.findall(r'^__version__ = "(.+)"$', INIT.read_text(encoding="utf-8"), re.MULTILINE)[0]

# jax 0.10 is the last for Python 3.11. flax before 0.12.9 does not import with jax from 0.11.1 on,
# and pip does not know: the markers keep it from choosing such a pair.
JAX = {"< '3.12'": ">=0.10,<0.11", ">= '3.12'": ">=0.10,<0.13"}
FLAX = {"< '3.12'": ">=0.12,<0.13", ">= '3.12'": ">=0.12.9,<0.13"}


def by_python(package: str, versions: dict[str, str]) -> list[str]:
    """A requirement for each range of Python versions."""
    return [f"{package}{wanted}; python_version {x}" for x, wanted in versions.items()]


# Lower bounds are releases that the tests passed with. Upper bounds: packages whose private parts
# are read (orbax's metadata file, flax's variable states), or whose next release is known to break.
REQUIRED = [
    "absl-py>=2.1",
    "cachetools>=8.0",
    "chex>=0.1.90",
    "datasets>=4.0",
    *by_python("flax", FLAX),
    "huggingface_hub>=1.0",
    *by_python("jax", JAX),
    "jinja2>=3.1",  # chat templates; transformers asks for it only when one is rendered
    "markupsafe>=2.1",
    "matplotlib>=3.9",
    "ml_collections>=1.0",
    "ml_dtypes>=0.5",
    "mpmath>=1.3",
    "numpy>=2.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.12,<0.13",
    "pyarrow>=17",
    "pyyaml>=6",
    "rich>=13",
    "safetensors>=0.5",
    "scipy>=1.13",
    "sympy>=1.13",
    "tokenizers>=0.22",
    "transformers>=5.0,<6",
]
TENSORBOARD = ["tensorboardX>=2.6"]
INT8 = ["qwix>=0.1.8"]
GGUF = ["gguf>=0.17"]
API = ["openai>=2,<4"]
SERVE = ["starlette>=1.0,<2", "uvicorn>=0.40"]
MATH_VERIFY = ["math-verify[antlr4_13_2]>=0.9,<0.10"]
TEST = [
    "hypothesis>=6.100",
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    *API,
    *GGUF,
    *INT8,
    *MATH_VERIFY,
    *SERVE,
    *TENSORBOARD,
]

setup(
    name="distill_jax",
    version=VERSION,
    description="Distillation of reasoning from a large Qwen teacher into a small student, in JAX",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["distill_jax*"]),
    package_data={"distill_jax.report": ["*.css", "*.jinja"]},
    install_requires=REQUIRED,
    extras_require={
        "test": TEST,
        # A bare torch pulls gigabytes of CUDA. The test against TRL sets parts of its trainer.
        "parity": ["torch==2.13.0", "peft>=0.17", "trl>=1.16,<1.17"],
        **{name: by_python(f"jax[{name}]", JAX) for name in ("cuda12", "cuda13", "tpu")},
        "api": API,
        "serve": SERVE,
        "tensorboard": TENSORBOARD,
        "gguf": GGUF,
        "int8": INT8,
        "math-verify": MATH_VERIFY,
        "wandb": ["wandb>=0.19"],
        # The site: mkdocs build. Later majors of both are other programs.
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10"],
        "dev": [*TEST, "mypy>=1.15", "ruff>=0.11", "types-cachetools>=7.0"],
    },
)
