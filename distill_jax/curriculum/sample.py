"""The problems of a step: a pure function of the seed, the step, the shares and the counts.

Each place of the batch draws its arm by the shares; an arm then gives its problems in the order
of a shuffle, so that none comes again before all of its arm have come, but where two shuffles
meet. A pool of another size is another shuffle: one that grows with every step draws as with
replacement. `count_A`, how many each arm has given so far, is the place in that shuffle: nothing
else is remembered, and every process that knows the state draws the same.
"""

from functools import lru_cache

import numpy as np

from distill_jax.curriculum.arms import Arms
from distill_jax.curriculum.methods import Choice

# The last word of Philox's counter keeps these streams apart from other draws under the same key
# (data.batching has 0 and 1, the order of minibatches 2).
_ARMS, _SHUFFLE = 3, 4


def draw(
    choice: Choice,
    arms: Arms,
    count_A: np.ndarray,
    *,
    seed: int,
    step: int,
    number: int,
    batch: int,
) -> np.ndarray:
    """Numbers of the problems in the list that the arms were built from, int64 [batch].

    Args:
        choice: shares and pools of the arms.
        arms: of the problems.
        count_A: int [A], problems that each arm has given before.
        seed: of the run.
        step: from 0.
        number: of the draw within the step, from 0.
        batch: problems wanted.
    """
    bits = np.random.Philox(key=[seed, step], counter=[0, number, 0, _ARMS])
    bounds_A = np.cumsum(choice.share_A)
    # Divided, so that rounding cannot leave a gap below 1.
    where_B = np.random.Generator(bits).random(batch)
    arm_B = np.searchsorted(bounds_A / bounds_A[-1], where_B, side="right")
    out = np.empty(batch, np.int64)
    for arm in np.unique(arm_B):
        places = np.flatnonzero(arm_B == arm)
        pool = int(choice.pool_A[arm])
        for offset, place in enumerate(places):
            epoch, at = divmod(int(count_A[arm]) + offset, pool)
            out[place] = arms.members[arm][_shuffle(seed, epoch, int(arm), pool)[at]]
    return out


@lru_cache(maxsize=256)
def _shuffle(seed: int, epoch: int, arm: int, pool: int) -> np.ndarray:
    bits = np.random.Philox(key=[seed, epoch], counter=[0, arm, pool, _SHUFFLE])
    return np.random.Generator(bits).permutation(pool)
