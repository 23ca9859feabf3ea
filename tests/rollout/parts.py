"""`Sampler.stream` of samplers that have only `generate`: part by part."""

from collections.abc import Iterator, Sequence
from typing import Any

from distill_jax.rollout.sampler import Part, Rollout


def stream(
    sampler: Any, weights: Any, parts: Sequence[Part], settings: Any, *, rows: int, **how: Any
) -> Iterator[Rollout]:
    del rows
    for part in parts:
        ends = {"stops": part.stops, "rooms": part.rooms}
        given = {name: one for name, one in ends.items() if one is not None}
        yield sampler.generate(
            weights, part.prompts, settings, prompt_ids=part.prompt_ids, ended=None, **given, **how
        )
