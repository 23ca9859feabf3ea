"""A student of a run as a directory that other tools load, with a model card, or as a GGUF file.

    python -m launch.export_model --workdir=runs/tiny --stage=rl --merged=out/student
    python -m launch.export_model --workdir=runs/tiny --stage=rl --adapter=out/adapter
    python -m launch.export_model --workdir=runs/tiny --stage=rl --gguf=out/student.gguf

--stage is a stage that makes a student, STAGE_step_N (a checkpoint of it), base, or student (the
last one, the default). --merged writes a whole Hugging Face model, the adapter in its weights;
--adapter writes the adapter alone, in PEFT's form; --gguf writes a whole model for llama.cpp as
one file, in float16 (extra gguf). The directory must be new or empty, the file new; each is written
whole or not at all.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import logging

import distill_jax.stages.runner  # noqa: F401 - registers the kinds
from distill_jax.core.errors import ConfigError
from distill_jax.core.files import check_local
from distill_jax.handover import export as exports
from distill_jax.report import view as views
from distill_jax.run.run import Run
from distill_jax.run.workdir import config_here
from launch import main as main_job
from launch.arguments import OneLine, tool_parser

_GB = 1_000_000_000


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, writes the directory, prints where it is."""
    parser = tool_parser("export_model", __doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="work directory of a run")
    parser.add_argument("--stage", default="student", help="which student; default: the last")
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--merged", type=Path, metavar="DIR", help="write a whole model there")
    form.add_argument("--adapter", type=Path, metavar="DIR", help="write a PEFT adapter there")
    form.add_argument("--gguf", type=Path, metavar="FILE", help="write a file for llama.cpp")
    parser.add_argument(
        "--dtype",
        choices=list(exports.DTYPES),
        default="float32",
        help="of the weights of --merged (%(default)s)",
    )
    parser.add_argument(
        "--shard_gb",
        type=float,
        default=5.0,
        help="largest weight file of --merged, 10⁹ bytes (%(default)s)",
    )
    flags = parser.parse_args(argv)
    logging.set_verbosity(logging.WARNING)
    main_job.start_compilation_cache(None)
    with OneLine() as guard:
        kinds = {
            exports.MERGED: flags.merged,
            exports.ADAPTER: flags.adapter,
            exports.GGUF: flags.gguf,
        }
        form_name, target = next((kind, path) for kind, path in kinds.items() if path)
        guard.directory = target
        if not flags.shard_gb > 0:
            raise ConfigError(f"--shard_gb={flags.shard_gb}", wanted="above 0")
        check_local(flags.workdir, "--workdir")
        check_local(target, f"--{form_name}")
        exports.check_target(target, form_name)  # before a model is loaded
        config = config_here(flags.workdir)
        name = views.canonical(flags.stage, views.load(flags.workdir))
        request = exports.Request(form_name, flags.dtype, int(flags.shard_gb * _GB))
        with Run(config, flags.workdir) as run:
            exports.export(run, name, request, target)
            run.say(f"{name}: {target}")


if __name__ == "__main__":
    main()
