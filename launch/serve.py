"""Serves a model at an OpenAI-compatible address: chat, completions, log-probabilities of prompts.

    python -m launch.serve --workdir=runs/tiny
    python -m launch.serve --workdir=runs/tiny --model=teacher --port=8001
    python -m launch.serve --model=DIR --host=0.0.0.0 --key_variable=SERVE_KEY

With --workdir, --model is teacher, base, a stage, STAGE_step_N, student (the last one, the default)
or a directory; without it a Hugging Face directory, a hub id or a PEFT adapter. Needs the extra
serve. SIGTERM and Ctrl-C let the requests in flight and in the queue finish.
"""

import contextlib
import importlib.util
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from absl import logging

import distill_jax.stages.runner  # noqa: F401 - registers the kinds
from distill_jax.core.errors import ConfigError, MissingExtraError
from distill_jax.core.files import check_local
from distill_jax.data import tokenizer as tokenizers
from distill_jax.report import view as views
from distill_jax.run.run import Run
from distill_jax.run.workdir import config_here
from launch import main as main_job
from launch.arguments import OneLine, tool_parser

_LOCAL = ("127.0.0.1", "::1", "localhost")


def key_of(variable: str) -> str:
    """The key in an environment variable; "" where none is named. ConfigError where it is empty."""
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(
            f"--key_variable={variable}: the variable is not set, or no key",
            wanted="a key of printable ASCII signs",
            fix=f"export {variable}=..., or drop --key_variable to serve without a key",
        )
    return key


def check(flags: Namespace) -> None:
    """Raises MissingExtraError or ConfigError before a model is loaded."""
    missing = [one for one in ("starlette", "uvicorn") if importlib.util.find_spec(one) is None]
    if missing:
        got = f"serving needs the package {' and '.join(missing)}"
        raise MissingExtraError(got, fix="pip install -e '.[serve]'")
    if flags.workdir is None and flags.model is None:
        raise ConfigError("neither --workdir nor --model", wanted="one of them")
    for name in ("rows", "queue", "prompt_tokens", "new_tokens"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name}={value}", wanted="1 or more")
    if not 0 <= flags.port < 2**16:
        raise ConfigError(f"--port={flags.port}", wanted="0 (any free one) to 65535")


def serve(flags: Namespace) -> int:
    """Loads the model and serves it; returns the exit code."""
    from distill_jax.serving import served, server

    key = key_of(flags.key_variable)
    settings = server.ServeSettings(flags.host, flags.port, flags.rows, flags.queue, key)
    limits = served.Limits(flags.prompt_tokens, flags.new_tokens)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if flags.host not in _LOCAL and not key:
        say("warning: everybody who reaches this address can use it; --key_variable asks for a key")
    with contextlib.ExitStack() as stack:
        if flags.workdir is None:
            found = served.of_directory(flags.model, flags.name, limits, flags.dtype)
            if note := tokenizers.note_of_chatml(found.tokenizer, flags.model):
                say(note)
        else:
            check_local(flags.workdir, "--workdir")
            config, view = config_here(flags.workdir), views.load(flags.workdir)
            name = views.canonical(flags.model or "student", view)
            run = Run(config, flags.workdir)  # not entered: the signals are the server's
            stack.callback(run.data.close)
            found = served.of_run(run, name, flags.name, limits)
        return server.run(found, settings, say)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and serves."""
    parser = tool_parser("serve", __doc__)
    parser.add_argument("--workdir", type=Path, help="work directory of a run")
    parser.add_argument("--model", help="see above")
    parser.add_argument(
        "--name", default="", help="model name in requests; default: the model's own"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (%(default)s)")
    parser.add_argument(
        "--rows", type=int, default=8, help="completions drawn at a time (%(default)s)"
    )
    parser.add_argument(
        "--queue", type=int, default=256, help="requests that may wait (%(default)s)"
    )
    parser.add_argument("--prompt_tokens", type=int, help="longest prompt; default: the run's")
    parser.add_argument("--new_tokens", type=int, help="longest completion; default: the run's")
    parser.add_argument(
        "--key_variable",
        default="",
        help="environment variable that holds the key; default: no key",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of weights, without --workdir (%(default)s)",
    )
    flags = parser.parse_args(argv)
    logging.set_verbosity(logging.WARNING)
    main_job.start_compilation_cache(None)
    with OneLine():
        check(flags)
        code = serve(flags)
    sys.exit(code)


if __name__ == "__main__":
    main()
