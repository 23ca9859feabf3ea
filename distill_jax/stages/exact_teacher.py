"""The teacher of a stage rl with credit=exact: its weights are run by the loss of the update."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distill_jax.core import sharding
from distill_jax.data.problem import Problem
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.stages import teacher, teacher_prompts
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.training import distillation, exact_credit
from distill_jax.training.batch import PolicyBatch
from distill_jax.training.exact_credit import ExactBatch
from distill_jax.training.step import LossFn, TotalsFn


class ExactTeacher:
    """What the update needs of the teacher.

    Args:
        run: mesh, padding.
        settings: of the stage.
        loaded: the teacher, with its weights on the mesh.
    """

    def __init__(self, run: Run, settings: RLSettings, loaded: Loaded):
        self._run, self._settings, self._model = run, settings, loaded.model
        self._prompts = teacher_prompts.make(run, settings.teacher)
        self.params = loaded.params

    @property
    def rereads(self) -> bool:
        """Whether it reads the responses after its own prompts."""
        return self._prompts is not None

    @property
    def objective(self) -> Callable[..., tuple[LossFn, TotalsFn]]:
        """`training.exact_credit.policy` of this teacher, to be called as `losses.policy`."""
        weight = self._settings.rewards.intrinsic_weight
        return functools.partial(exact_credit.policy, teacher=self._model, weight=weight)

    def batch(
        self, policy: PolicyBatch, host: RolloutBatch, problems: Sequence[Problem]
    ) -> ExactBatch:
        """The batch of the loss, on the mesh: a rollout's policy batch, and what else it reads.

        host: the same rollout, on the host. problems: of each row.
        """
        read: dict[str, Any] = {}
        if self._prompts is not None:
            multiple, prompts = self._settings.batch_multiple, self._prompts.of(problems)
            found = teacher.reread(self._run, host.to_score(), prompts, multiple)
            shared = "prompts_PS" in found
            names = distillation.READ_GROUPS if shared else distillation.READ
            read = {f"teacher_{name}": found[name] for name in names}
        # The last token of a completion that ended is EOS.
        places_R = np.arange(host.targets_BR.shape[1])
        end_BR = (places_R == host.response_len_B[:, None] - 1) & host.ended_B[:, None]
        rows = sharding.batch_sharding(self._run.mesh)
        end_BR, read = sharding.place((end_BR.astype(np.float32), read), rows)
        return ExactBatch(policy, end_BR, read)


def of_stage(
    run: Run, stage: Stage[RLSettings], start: Loaded, *, trained: Sequence[str] = ()
) -> ExactTeacher | None:
    """The teacher of the stage's loss; None but with credit=exact. Arguments: `teacher.load`."""
    settings = stage.settings
    if not settings.rewards.exact:
        return None
    return ExactTeacher(run, settings, teacher.load(run, settings.teacher, start, trained=trained))
