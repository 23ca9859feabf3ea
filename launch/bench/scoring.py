"""Measures a reward model on candidates: one forward pass over all, and one for each step."""

import numpy as np

from distill_jax.inference import process_scorer
from distill_jax.models import process_head, reward_model_io
from distill_jax.reasoning import steps
from distill_jax.reasoning.steps import Encoded
from launch.bench.steps import Bench


def scoring(bench: Bench) -> None:
    """Scores all steps of `score_rows` candidates of one prompt by a linear head, both ways.

    `score_at_once_s` is one pass over all candidates, the states at all steps' ends gathered.
    `score_by_step_s` is a pass for each step of each candidate over all that comes before it, as
    the script of RLHFlow's reward models does. Both go through `process_scorer.probabilities`.
    """
    s, step_id = bench.settings, 1
    geometry, base = reward_model_io.trunk(bench.config, bench.params["base"])
    model = bench.teacher.replace(config=geometry)
    params = {"base": base, "lora": {}}
    shapes = process_head.shapes("linear", geometry.hidden_size)
    score = {n: bench.random.standard_normal(x).astype(np.float32) for n, x in shapes.items()}
    prompt = bench.tokens(s.prompt_tokens).tolist()
    texts = bench.tokens(s.score_rows, s.score_steps, s.score_step_tokens - 1).tolist()
    longest = s.prompt_tokens + s.score_steps * s.score_step_tokens
    whole = [steps.encode(prompt, one, step_id, longest) for one in texts]
    prefixes = [
        [Encoded(row.tokens[: end + 1], [end], 0, row.start) for end in row.ends] for row in whole
    ]

    def run(rows: list[Encoded]) -> list[np.ndarray]:
        return process_scorer.probabilities(
            model, params, score, rows, mesh=bench.mesh, batch=len(rows)
        )

    ways = {
        "score_at_once_s": lambda: run(whole),
        "score_by_step_s": lambda: [run([prefix]) for row in prefixes for prefix in row],
    }
    count = s.score_rows * s.score_steps
    for name, way in ways.items():
        seconds = bench.measure(name, way, sum(len(row.tokens) for row in whole))
        bench.figures[name]["steps_per_s"] = count / seconds
