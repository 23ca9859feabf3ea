"""The settings of stage kind rl."""

from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar

from distill_jax.core.batching import round_up, whole_groups
from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.evaluation.runner import EvaluateSettings as EvaluateSettings
from distill_jax.evaluation.solve_settings import SolveSettings as SolveSettings
from distill_jax.kernels.policy_losses import LOSSES, PolicyLossSettings
from distill_jax.rewards.length_buckets import BucketSettings
from distill_jax.rewards.process import ProcessSettings
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher_cache import CacheSettings
from distill_jax.run.settings import (
    Shared,
    TrainSettings,
)
from distill_jax.stages.settings import MAX_CLIPPED, STUDENT_TRAINING, lengths_of_drawn
from distill_jax.stages.teacher_settings import ENDPOINT, StageTeacherSettings
from distill_jax.training.algorithms import ALGORITHMS, GroupSettings, PPOSettings
from distill_jax.training.replay import ReplaySettings, held_bytes
from distill_jax.training.state import TRAINABLE

# The signal of a group that stage rl gives its curriculum. With an intrinsic reward the samples of
# every group differ, so advantages look the same for hopeless, useful and mastered arms.
ARM_SIGNALS = ("advantage", "correctness")


def _bounds_without(name: str, algorithm: str) -> bool:
    """Whether a group method's policy loss ignores this setting of `group.clip`; False for ppo."""
    return algorithm in LOSSES and name not in LOSSES[algorithm].reads


@dataclass(frozen=True)
class RLSettings(TrainSettings, kind="rl", makes="student"):
    """Reinforcement learning of the student, by its LoRA parameters or by all."""

    UNREAD: ClassVar = (
        *TrainSettings.UNREAD,
        Unread(("cache", "buckets", "teacher"), ("rewards.intrinsic_weight",), off),
        Unread(("buckets",), ("teacher.source",), lambda source: source == ENDPOINT),
        Unread(("cache", "buckets"), ("rewards.credit",), lambda credit: credit == "exact"),
        Unread(
            ("buckets.rows",),
            ("buckets.lengths", "teacher.models"),
            lambda lengths, models: lengths == 1 and not models,
        ),
        Unread(
            ("group.ddof",),
            ("group.scale", "rewards.aggregation"),
            lambda scale, aggregation: scale == "none" and aggregation == "sum",
        ),
        *(
            Unread((f"group.clip.{one.name}",), ("algorithm",), partial(_bounds_without, one.name))
            for one in fields(PolicyLossSettings)
        ),
    )

    start: str = setting(
        "sft", "Student to start from: base, a stage, or a directory.", ref="student"
    )
    trainable: str = setting(
        "lora", "Parameters to train: LoRA's, or all of the student's.", choices=TRAINABLE
    )
    algorithm: str = setting(
        "grpo",
        "Policy loss and its average; dr_grpo as published also needs group.scale=none.",
        choices=tuple(ALGORITHMS),
    )
    steps: int = setting(50, "Rollouts, each followed by its updates.", low=1)
    prompts_per_step: int = setting(16, "Prompts a step (P).", low=1)
    samples_per_prompt: int = setting(8, "Completions of each prompt (G).", low=1)
    num_iterations: int = setting(1, "Passes over a rollout's batch.", low=1)
    minibatches: int = setting(1, "Updates in each pass.", low=1)
    oversample: int = setting(
        1,
        "Completions drawn for each one that is trained on: the right ones with few faults are "
        "kept, wrong ones at random (GRPO-RoC); 1 is off.",
        low=1,
    )
    dynamic_sampling: int = setting(
        0,
        "Extra rounds of prompts that replace groups all right or all wrong (DAPO); with "
        "rewards.length_weight groups all right stay.",
        low=0,
    )
    arm_signal: str = setting(
        "advantage",
        "An arm's signal: mean |advantage|, or 2√(p(1−p)) of right answers alone; p is the share "
        "of a problem's samples, with one of each that of the step's samples in the arm.",
        choices=ARM_SIGNALS,
    )
    mask_truncated: bool = setting(
        False, "Mask completions without EOS in the loss (not in the group's mean)."
    )
    max_clipped: float = setting(
        MAX_CLIPPED,
        "Refuse to train where more of the first rollout's completions than this share are cut "
        "off without EOS; 1 never refuses.",
        low=0.0,
        high=1.0,
        affects="nothing",
    )
    batch_multiple: int = setting(
        64, "Batch lengths are multiples of this.", low=1, affects="rounding"
    )
    drawn_lengths: int = lengths_of_drawn()
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)
    replay: ReplaySettings = field(default_factory=ReplaySettings)
    rewards: RewardSettings = field(default_factory=RewardSettings)
    process: ProcessSettings = field(default_factory=ProcessSettings)
    teacher: StageTeacherSettings = field(default_factory=StageTeacherSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    buckets: BucketSettings = field(default_factory=BucketSettings)
    group: GroupSettings = field(default_factory=GroupSettings)
    ppo: PPOSettings = field(default_factory=PPOSettings)

    def __post_init__(self) -> None:
        rows = self.prompts_per_step * self.samples_per_prompt
        if rows % (self.minibatches * self.accumulate):
            raise ConfigError(
                f"prompts_per_step×samples_per_prompt={rows} rows in "
                f"minibatches×accumulate={self.minibatches * self.accumulate} parts",
                wanted="a multiple",
                fix="change prompts_per_step or samples_per_prompt, or lower minibatches or "
                "accumulate",
            )
        values = ALGORITHMS[self.algorithm].uses_values
        unread = "group" if values else "ppo"
        given = getattr(self, unread)
        for one in fields(given):
            if getattr(given, one.name) != getattr(type(given)(), one.name):
                got = f"{unread}.{one.name} with algorithm={self.algorithm}"
                raise ConfigError(got, wanted="its default: this algorithm does not read it")
        if self.ppo.value_warmup_steps and self.optimizer.weight_decay:
            raise ConfigError(
                f"ppo.value_warmup_steps={self.ppo.value_warmup_steps} with "
                f"optimizer.weight_decay={self.optimizer.weight_decay}",
                wanted="weight_decay=0: it would move the policy in steps that do not train it",
            )
        rewards = self.rewards
        if self.teacher.is_remote and (rewards.alpha != 1.0 or rewards.form != "canonical"):
            raise ConfigError(
                f"teacher.source=endpoint with rewards.alpha={rewards.alpha}, "
                f"rewards.form={rewards.form}",
                wanted="alpha=1 and form=canonical: a server gives log-probabilities at "
                "temperature 1, not the logits that another α or V needs",
            )
        length = self.rewards.length_weight
        if self.process.reward_model and (values or (self.dynamic_sampling and not length)):
            got = f"algorithm={self.algorithm}" if values else "dynamic_sampling"
            raise ConfigError(
                f"process.reward_model with {got}",
                wanted="a group method, and groups that are all right kept: the bonus ranks them",
            )
        if length and (values or ALGORITHMS[self.algorithm].sequence_mean):
            tokens = [n for n, a in ALGORITHMS.items() if not (a.uses_values or a.sequence_mean)]
            raise ConfigError(
                f"rewards.length_weight={length} with algorithm={self.algorithm}",
                wanted=f"one of {', '.join(tokens)}: group methods whose loss averages over "
                "tokens; the mean of a sequence's mean favours long wrong answers",
            )
        if self.replay.groups and (values or rewards.intrinsic_weight):
            got = f"rewards.intrinsic_weight={rewards.intrinsic_weight}"
            raise ConfigError(
                f"replay.groups={self.replay.groups} with "
                + (f"algorithm={self.algorithm}" if values else got),
                wanted="a group method without the teacher's reward: with it hardly a group is "
                "without an advantage, and none gives its place away",
                fix="rewards.intrinsic_weight=0, rewards.credit=sequence, and a group method",
            )
        self._check_credit(values)
        if self.oversample > 1 and (values or self.samples_per_prompt < 4):
            got = f"algorithm={self.algorithm}" if values else "samples_per_prompt below 4"
            raise ConfigError(
                f"oversample={self.oversample} with {got}",
                wanted="a group method with at least 4 samples: two right and two wrong ones stay",
            )

    def _check_credit(self, values: bool) -> None:
        rewards, got = self.rewards, f"with algorithm={self.algorithm}"
        if values and rewards.credit != "sequence":
            raise ConfigError(
                f"rewards.credit={rewards.credit} {got}",
                wanted="sequence: ppo has a reward and an advantage for each token in any case",
                fix="set rewards.student_weight and rewards.sequence, ppo.gamma and ppo.lam, or "
                "take a group method",
            )
        if values and rewards.aggregation != "sum":
            raise ConfigError(
                f"rewards.aggregation={rewards.aggregation} {got}",
                wanted="a group method: terms are normalised in their group",
            )
        compares = rewards.compares or bool(self.process.reward_model or self.dynamic_sampling)
        if rewards.exact:
            self._check_exact(compares)
        if self.samples_per_prompt > 1:
            return
        if rewards.intrinsic_weight and rewards.control != "none":
            raise ConfigError(
                f"rewards.control={rewards.control} with samples_per_prompt=1",
                wanted="at least 2: rewards go to other completions of the prompt",
            )
        if not values and compares:
            raise ConfigError(
                f"samples_per_prompt=1 {got}",
                wanted="at least 2: the group's mean is the baseline",
                fix="raise samples_per_prompt (configs/rl.py:grpo has 8), or take "
                "rewards.credit=exact or token without what compares completions: "
                "rewards.token_baseline=none, intrinsic_weight as the only weight, no "
                "overlong_buffer, dynamic_sampling or reward model",
            )

    def _check_exact(self, compares: bool) -> None:
        if self.teacher.is_remote or self.teacher.models:
            more = f"models={self.teacher.models}" if self.teacher.models else "source=endpoint"
            raise ConfigError(
                f"rewards.credit=exact with teacher.{more}",
                wanted="teacher.source=model or start, alone: the loss compares whole "
                "distributions, for which it runs the teacher's weights",
                fix="take rewards.credit=token",
            )
        follows = self.curriculum.method == "self_evolving" and self.curriculum.signal_weight
        if follows and not compares and self.arm_signal == "advantage":
            raise ConfigError(
                "curriculum.method=self_evolving with rewards.credit=exact and no other term",
                wanted="another method, curriculum.signal_weight=0 or arm_signal=correctness: "
                "without another term every advantage is 0",
            )

    def updates(self) -> int:
        return self.steps * self.num_iterations * self.minibatches

    @property
    def drawn_parts(self) -> int:
        """Parts of a batch that minibatches are drawn from: whole groups, if these divide."""
        whole = self.prompts_per_step % self.minibatches == 0
        return self.prompts_per_step * (1 if whole else self.samples_per_prompt)

    def shares_prompts(self, shards: int) -> bool:
        """Whether a prompt is computed once for all its samples, in updates and scores.

        Each of so many devices must have whole groups of each microbatch. Replay keeps whole rows.
        """
        parts = self.minibatches * self.accumulate * shards
        shared = whole_groups(self.prompts_per_step, self.samples_per_prompt, parts)
        return shared and not self.replay.groups

    def teacher_shares_prompts(self, shards: int) -> bool:
        """Whether the teacher is given prompts apart: not behind a cache, nor in fixed calls.

        Packed rows, which are fixed calls, hold a prompt once by themselves.
        """
        rows = self.fixed_calls or self.cache.megabytes > 0
        return not rows and self.shares_prompts(shards)

    @property
    def reference_weight(self) -> float:
        """Weight of the KL to the student as it starts; with 0 no copy of it is kept."""
        algorithm = ALGORITHMS[self.algorithm]
        return algorithm.reference_weight(self.ppo if algorithm.uses_values else self.group)

    def replay_bytes(self, tokens: int, responses: int) -> int:
        """Bytes of the replay buffer, of rows and responses of at most so many tokens."""
        reference, responses = bool(self.reference_weight), round_up(responses, self.batch_multiple)
        return held_bytes(
            self.replay, self.samples_per_prompt, tokens, responses,
            reference=reference, top_entropy=self.by_entropy,
        )  # fmt: skip

    def of_algorithm(self, longest: int) -> Any:
        """Settings of the algorithm, for completions of at most so many tokens."""
        return self.ppo if self.uses_values else self.group.at_length(longest)

    @property
    def uses_values(self) -> bool:
        """Whether the algorithm trains a value head."""
        return ALGORITHMS[self.algorithm].uses_values

    @property
    def by_entropy(self) -> bool:
        """Whether tokens are chosen by the policy's entropy before the update."""
        return not self.uses_values and self.group.top_entropy < 1.0

    @property
    def needs_old(self) -> bool:
        """Whether the policy before the update is scored.

        With one update a rollout, it is the one that is trained.
        """
        several = self.num_iterations * self.minibatches > 1
        return self.uses_values or self.by_entropy or several or self.replay.groups > 0

    def shared(self) -> tuple[str, ...]:
        teacher = ("teacher",) if self.loads_teacher else ()
        return (*STUDENT_TRAINING, "sampling", *teacher)

    def roles(self) -> tuple[str, ...]:
        return ("teacher", "student") if self.loads_teacher else ("student",)

    def further_models(self) -> dict[str, str]:
        return self.teacher.paths if self.loads_teacher else {}

    @property
    def loads_teacher(self) -> bool:
        """Whether the run's teacher is loaded, to score tokens."""
        return self.rewards.intrinsic_weight > 0 and self.teacher.is_model

    @property
    def fixed_calls(self) -> bool:
        """Whether the teacher scores in calls of fixed shapes, not a batch at its own length."""
        return self.buckets.lengths > 1 or self.buckets.packed or bool(self.teacher.models)

    def check_with(self, shared: Shared, name: str) -> None:
        self.check_best(shared, name)
        if shared.sampling.temperature == 0.0:
            raise ConfigError(
                f"sampling.temperature=0 in stage {name}",
                wanted="above 0; greedy completions of one prompt are all the same",
            )
        rewards, longest = self.rewards, shared.sampling.max_new_tokens
        tokens = {
            "overlong_buffer": rewards.overlong_buffer,
            "length.buffer": rewards.length.buffer,
            "length.target": rewards.length.target,
        }
        for setting_name, value in tokens.items():
            if value > longest:
                raise ConfigError(
                    f"{name}.rewards.{setting_name}={value} with sampling.max_new_tokens={longest}",
                    wanted="a part of the longest completion",
                )

    def summary(self, shared: Shared) -> dict[str, Any]:
        return {
            "algorithm": self.algorithm,
            "prompts_per_step": self.prompts_per_step,
            "samples_per_prompt": self.samples_per_prompt,
            "reward_weights": dict(self.rewards.weights),
            "temperature": shared.sampling.temperature,
            "max_new_tokens": shared.sampling.max_new_tokens,
        }
