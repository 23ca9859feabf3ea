"""Packaging of distill_jax. Tool settings live in pyproject.toml."""

from setuptools import find_packages, setup

# Lower bounds are the releases that the tests pass with; jax 0.10 is the last for Python 3.11.
REQUIRED = [
    "absl-py>=2.1",
    "cachetools>=8.0",
    "chex>=0.1.90",
    "datasets>=4.0",
    "flax>=0.12",
    "huggingface_hub>=1.0",
    "jax>=0.10,<0.13",
    "jinja2>=3.1",  # chat templates; transformers asks for it only when one is rendered
    "math-verify[antlr4_13_2]>=0.9,<0.10",
    "matplotlib>=3.9",
    "ml_collections>=1.0",
    "ml_dtypes>=0.5",
    "mpmath>=1.3",
    "numpy>=2.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.12",
    "pyarrow>=17",
    "rich>=13",
    "safetensors>=0.5",
    "scipy>=1.13",
    "sympy>=1.13",
    "tokenizers>=0.22",
    "transformers>=5.0,<6",
]
TENSORBOARD = ["tensorboardX>=2.6"]
INT8 = ["qwix>=0.1.8"]
TEST = [
    "hypothesis>=6.100",
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    *INT8,
    *TENSORBOARD,
]

setup(
    name="distill_jax",
    version="0.1.0",
    description="Distillation of reasoning from a large Qwen teacher into a small student, in JAX",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["distill_jax*", "launch*", "configs*"]),
    package_data={"distill_jax.report": ["*.css", "*.jinja"]},
    install_requires=REQUIRED,
    extras_require={
        "test": TEST,
        "parity": ["torch==2.13.0", "peft>=0.17"],  # a bare torch pulls gigabytes of CUDA
        "cuda12": ["jax[cuda12]>=0.10,<0.13"],
        "cuda13": ["jax[cuda13]>=0.10,<0.13"],
        "tpu": ["jax[tpu]>=0.10,<0.13"],
        "tensorboard": TENSORBOARD,
        "int8": INT8,
        "wandb": ["wandb>=0.19"],
        "dev": [*TEST, "mypy>=1.15", "ruff>=0.11", "types-cachetools>=7.0"],
    },
)
