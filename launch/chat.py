"""Chat with a model: reads one problem a line and prints its answer, to the end of the input.

    python -m launch.chat --workdir=runs/tiny
    python -m launch.chat --workdir=runs/tiny --model=base --temperature=0.7

--model is teacher, base, a stage that makes a student, STAGE_step_N, student (the last), or a
directory. Each line is one problem, put to the model as in training and evaluation.
"""

import sys
from collections.abc import Iterator

from absl import flags

from distill_jax.core.errors import DataError
from distill_jax.report import view as views
from distill_jax.run.config import build
from launch import arguments
from launch import main as main_job

flags.adopt_module_key_flags(main_job)
_MODEL = flags.DEFINE_string(
    "model", "student", "teacher, base, a stage, STAGE_step_N, student (the last), or a directory."
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", 0.0, "Divides the logits; 0 answers greedily.", lower_bound=0.0
)


def _lines() -> Iterator[str]:
    """Non-blank lines of standard input; a terminal shows a prompt."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _job(guard: arguments.OneLine) -> None:
    main_job.refuse_flags_of_stages()
    config = build(main_job.CONFIG.value)
    workdir = guard.directory = main_job.workdir_of(config)
    name = views.canonical(_MODEL.value, views.load(workdir))
    config = main_job.start_reading(config)
    from distill_jax.core import rng
    from distill_jax.data.problem import Problem
    from distill_jax.evaluation import subjects
    from distill_jax.inference import generate
    from distill_jax.run.run import Run

    with Run(config, workdir) as run:
        subject = subjects.named(run, name)
        loaded = subject.load()
        sampler = run.models.sampler(loaded.model, subject.tokenizer)
        sampling = config.sampling.whole(_TEMPERATURE.value)
        weights = sampler.weights(loaded.params, sampling)
        key = rng.stream_key(rng.run_key(config.seed), "chat")
        for number, line in enumerate(_lines()):
            try:
                data = run.data.task.prompts(
                    [Problem(str(number + 1), line, "", "")], subject.tokenizer
                )
            except DataError as error:  # later lines may be shorter
                print(f"DataError: {error}", file=sys.stderr, flush=True)
                continue
            drawn = generate.answers(
                sampler, lambda: weights, data.prompts, sampling, key=key, batch=1, ids=[number]
            )
            end = "" if drawn.ended_B[0] else " … (cut off)"
            print(run.data.text(drawn.tokens[0], subject.tokenizer) + end, flush=True)


if __name__ == "__main__":
    arguments.run_app(_job, "configs/rl.py or configs/rl.py:smoke")
