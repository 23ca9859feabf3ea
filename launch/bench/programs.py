"""Measures what grading programs adds to a GRPO step: its share that waits for the sandbox."""

import statistics
import sys
import time

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.data import synthetic
from distill_jax.data.sources import DataSettings
from distill_jax.data.synthetic import ProblemSettings
from distill_jax.tasks import ProgramSettings, ProgramTask, program_runs
from launch.bench.steps import Bench

# So long that no program of a busy machine is cut off: that would be no grading.
_LIMITS = ProgramSettings(instruction="", wall_s=60.0, cpu_s=10.0, deadline_s=600.0)


def programs(bench: Bench) -> None:
    """Grades a step's completions while the teacher scores, as stage rl does; after `Bench.rl`.

    `grpo_grading_s` is the time of the judge. Its `share_of_step` is what a step of rollout,
    teacher, update and grading takes longer than one without grading, over the whole step. The
    completions are the programs of embedded problems, no two the same: all of them run. Without
    Linux there is no full sandbox and no figure.
    """
    if sys.platform != "linux":
        return
    s, scorer = bench.settings, bench.scorer()
    count = s.prompts * s.samples
    made = ProblemSettings(style="program", train_size=max(count, 64))
    problems = synthetic.problems("train", count, made, 0)
    host = bench.supervised_rows(count)
    batch = sharding.place(host, bench.rows)
    task = ProgramTask(DataSettings(), None, _LIMITS)
    grading, alone, both = [], [], []
    try:
        for repeat in range(1 + s.warmup + s.repeats):
            # A comment makes the programs of each repetition new ones.
            texts = [
                p.solution.replace("```python\n", f"```python\n# {repeat}\n") for p in problems
            ]
            begun = time.perf_counter()
            jax.block_until_ready(scorer.score(batch))
            scored = time.perf_counter()
            launched = scorer.score(batch)
            start = time.perf_counter()
            task.judge(problems, texts, np.ones(count, bool))
            judged = time.perf_counter()
            jax.block_until_ready(launched)
            if repeat > s.warmup:
                alone.append(scored - begun)
                grading.append(judged - start)
                both.append(time.perf_counter() - scored)
    finally:
        task.close()
        program_runs.forget()
    bench.note("grpo_grading_s", grading)
    added = max(0.0, statistics.median(both) - statistics.median(alone))
    step = bench.figures["grpo_step_s"]["median"] + statistics.median(alone) + added
    bench.figures["grpo_grading_s"] |= {"added_s": added, "share_of_step": added / step}
