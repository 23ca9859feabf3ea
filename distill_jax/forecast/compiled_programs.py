"""The programs of a stage from shapes alone, to compile for devices that are not here.

Each method of `Programs` is a generator: it yields a lowered program and is sent back the compiled
one, whose output shardings the next may take. Lengths and rows are the greatest that the settings
allow, as in `memory.py`. No array is made and no weights are read.
"""

from collections.abc import Collection, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.core.batching import round_up
from distill_jax.core.errors import ConfigError
from distill_jax.data import packing
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.forecast.cache import next_rows
from distill_jax.models.cache import KVCache, SharedPrompts
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.rewards import teacher as teachers
from distill_jax.rewards.length_buckets import NAMES
from distill_jax.rewards.packed_teacher import packed_names, shares_prompts
from distill_jax.rollout.sampler import Carry, Sampler
from distill_jax.rollout.slots import Slots
from distill_jax.rollout.weights import decode_shardings, decode_weights, gather
from distill_jax.run import models
from distill_jax.run.settings import Shared
from distill_jax.training import distillation, exact_credit, losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS
from distill_jax.training.batch import PolicyBatch, ScoredRollout
from distill_jax.training.exact_credit import ExactBatch
from distill_jax.training.step import make_update

# Programs of drawing, each of shapes that the one before gives.
# "grow a layer" goes from the first length of a cache to the last, by way of none.
SAMPLER = (
    "weights", "weights of a layer, whole", "prefill", "start", "grow a layer", "segment",
    "compact",
)  # fmt: skip
# Rows of supervised batches are padded to a multiple of this.
_MULTIPLE = 16


class Lowered(NamedTuple):
    """A program, traced for the mesh and not yet compiled."""

    name: str
    program: jax.stages.Lowered


Planned = Generator[Lowered, jax.stages.Compiled, None]


class Programs:
    """The programs of stages, one method a kind of stage.

    Args:
        config: the run's.
        teacher, student: geometries.
        mesh: of devices to compile for.
        only: names of the programs that are wanted, and with them what their shapes come from;
            none is all.

    Raises:
        ConfigError: a teacher in int8, which this does not cover.
    """

    def __init__(
        self, config: Shared, teacher: QwenConfig, student: QwenConfig, mesh: Mesh,
        only: Collection[str] = (),
    ):  # fmt: skip
        if config.teacher.int8:
            raise ConfigError(
                "teacher.quantise=int8",
                wanted="none: quantised weights are not covered by the compile check",
            )
        self.config, self.mesh, self.only = config, mesh, frozenset(only)
        self.rows, self.whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
        self.student = self._model(config.student, student).replace(lora=config.lora)
        self.teacher = self._model(config.teacher, teacher)
        # Tokens of a tokenizer that is made here; a model's own is not read, so all its rows count.
        made = not config.student.path
        rows = min(student.vocab_size, teacher.vocab_size)
        self.vocab = config.tokenizer_size if made else rows

    def supervised(self, settings: Any) -> Planned:
        """Programs of a stage that trains the student's adapter on given rows, as of sft."""
        tx = optimizer.make(settings.optimizer, settings.updates())
        trainable, frozen = states.split(self._params(self.student), "lora")
        state = states.shapes(trainable, tx, self.mesh)
        loss, totals = losses.sft(self.student, self.vocab)
        batch = self._packed(settings) if settings.packing else self._given(settings.batch_size)
        if self._wanted("update"):
            yield self._update("update", settings, tx, loss, totals, state, frozen, batch)

    def distillation(self, settings: Any) -> Planned:
        """Programs of a stage that distils a teacher, as of distill."""
        model, trainable, frozen = self._trained(settings.trainable)
        if settings.draws:
            rows = settings.batch_size // settings.samples
            if self._wanted(*SAMPLER):
                yield from self._sampler(model, rows, settings.samples)
        tx, loss = optimizer.make(settings.optimizer, settings.updates()), settings.loss
        teacher = self.teacher if settings.teacher.is_model else model
        own = self._given(settings.batch_size)
        own["place_BB"] = self._float(settings.batch_size, settings.batch_size)
        if loss.kd_weight and loss.top_k:
            B, R = own["targets_BR"].shape
            own["teacher_ids_XK"] = self._int(B, R, loss.top_k)
            own["teacher_logp_XK"] = self._float(B, R, loss.top_k)
            own["teacher_log_tail_X"] = self._float(B, R)
        elif loss.kd_weight:
            frozen = {**frozen, "teacher": self._params(teacher)}
            own |= self._reread(settings.teacher, settings.batch_size, _MULTIPLE)
        state = states.shapes(trainable, tx, self.mesh)
        kinds = [settings.data != "student_samples"] + [False] * (settings.lmbda > 0)
        for given in kinds:
            future = loss.future and not given
            objective = distillation.distill(
                model, teacher, loss, self.vocab, given=given,
                samples=settings.samples if future else 1,
                drawn_at=self.config.sampling.temperature if future else 1.0,
            )  # fmt: skip
            name = "update" if given else "update on own samples"
            batch = self._packed(settings) if given and settings.packing else own
            if self._wanted(name):
                yield self._update(name, settings, tx, *objective, state, frozen, batch)

    def reinforcement(self, settings: Any) -> Planned:
        """Programs of a stage that samples, scores and updates, as of rl."""
        model, trainable, frozen = self._trained(settings.trainable)
        P, G = settings.prompts_per_step, settings.samples_per_prompt
        if self._wanted(*SAMPLER):
            yield from self._sampler(model, P, G * settings.oversample)
        if settings.rewards.intrinsic_weight and not settings.teacher.is_remote:
            if not settings.rewards.exact and self._wanted("teacher scores"):
                yield self.teacher_scores(settings, model)
        algorithm = ALGORITHMS[settings.algorithm]
        if settings.uses_values:
            width = model.config.hidden_size
            trainable = jax.eval_shape(lambda t: states.with_value_head(t, width), trainable)
            trainable = sharding.abstract(trainable, states.param_shardings(trainable, self.mesh))
        how: dict[str, Any] = {"temperature": self.config.sampling.temperature, "vocab": self.vocab}
        rollout = self._rollout(settings)
        if (settings.needs_old or settings.reference_weight) and self._wanted("score"):
            score: Any = losses.policy_scorer(
                self.rows, model, values=settings.uses_values, entropy=settings.by_entropy, **how
            )
            yield Lowered("score", score.lower(trainable, frozen, rollout))
        about = settings.of_algorithm(self.config.sampling.max_new_tokens)
        batch: Any = self._policy_batch(settings, algorithm, about)
        objective: Any = losses.policy
        if settings.rewards.exact:
            teacher = self.teacher if settings.teacher.is_model else model
            frozen = {**frozen, "teacher": self._params(teacher)}
            batch = self._exact_batch(settings, batch)
            weight = settings.rewards.intrinsic_weight
            how |= {"teacher": teacher, "weight": weight}
            objective = exact_credit.policy
        tx = optimizer.make(settings.optimizer, settings.updates())
        state = states.shapes(trainable, tx, self.mesh)
        loss, totals = objective(model, algorithm, about, **how)
        if self._wanted("update"):
            yield self._update("update", settings, tx, loss, totals, state, frozen, batch)

    def _wanted(self, *names: str) -> bool:
        return not self.only or not self.only.isdisjoint(names)

    # --- programs -----------------------------------------------------------------------------

    def _sampler(self, model: QwenModel, prompts: int, samples: int) -> Planned:
        """Of drawing so many samples of each of so many prompts."""
        settings = self.config.sampling
        programs = self._sampling(model)
        of: Any = type(programs)
        made = self.weights(model)
        weights = outputs(made.program, (yield made))
        if self.mesh.shape["fsdp"] > 1:
            where = decode_shardings(weights, self.mesh)
            layer, placement = weights["body"]["layers"][0], where["body"]["layers"][0]
            yield Lowered("weights of a layer, whole", gather(placement).lower(layer))
            weights = sharding.abstract(weights, where)
        P = round_up(prompts, sharding.batch_shards(self.mesh))
        T = round_up(self.config.data.max_prompt_tokens, settings.prompt_multiple)
        prefill = self.prefill(model, weights, prompts)
        hidden_PD, cache = outputs(prefill.program, (yield prefill))
        host, most = jax.ShapeDtypeStruct, settings.max_new_tokens
        key_data = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        numbers = [host((P,), jnp.int32), host((P,), jnp.uint32), host((P,), jnp.uint32)]
        room = Slots.of(programs.bucket, T, settings, samples)
        begun = *numbers, key_data, host((), jnp.int32), samples
        given = hidden_PD, None if room.shared else cache, *begun, room.total
        lowered = of.start.lower(programs, *given)
        carry = outputs(lowered, (yield Lowered("start", lowered)))
        if room.shared:
            length_P: Any = self._int(P)
            carry = carry._replace(shared=SharedPrompts(cache, length_P))
        if room.hold(most):
            layer = KVCache(carry.cache.k[:1], carry.cache.v[:1])
            grow = of.grow_layer.lower(programs, layer, carry.slot_position_BS, room.total)
            layer, position_BS = outputs(grow, (yield Lowered("grow a layer", grow)))
            layers = KVCache(*(x * len(carry.cache.k) for x in layer))
            carry = carry._replace(cache=layers, slot_position_BS=position_BS)
        yield from self._decoding(programs, weights, carry, P * samples, room)

    def _decoding(
        self, programs: Any, weights: Any, carry: Carry, rows: int, room: Slots
    ) -> Planned:
        """Of so many rows, in a cache of its full length."""
        settings, of, host = self.config.sampling, type(programs), jax.ShapeDtypeStruct
        steps = min(settings.segment, settings.max_new_tokens)
        offsets = host((2,), jnp.int32)
        lowered = of.segment.lower(programs, weights, carry, offsets, steps, settings)
        carry = outputs(lowered, (yield Lowered("segment", lowered)))[0]
        parts = sharding.batch_shards(self.mesh)
        size = next_rows(rows, rows, settings, parts)
        if size < rows:
            kept: Any = host((size,), jnp.int32), host((size,), jnp.bool_)
            # As where each device has as many rows that go on.
            kept = *kept, room.apart(settings.max_new_tokens), parts > 1
            yield Lowered("compact", of.compact.lower(programs, carry, *kept))

    def weights(self, model: QwenModel) -> Lowered:
        """Decode weights, split as the trained ones are."""
        params, merge = self._params(model), self.config.sampling.merge_lora
        return Lowered("weights", decode_weights.lower(model, params, merge, self.vocab))

    def prefill(self, model: QwenModel, weights: Any, prompts: int) -> Lowered:
        """Of so many prompts, with weights that are placed in any way."""
        P = round_up(prompts, sharding.batch_shards(self.mesh))
        T = round_up(self.config.data.max_prompt_tokens, self.config.sampling.prompt_multiple)
        programs = self._sampling(model)
        of: Any = type(programs)
        lowered = of.prefill.lower(programs, weights, self._int(P, T), self._int(P))
        return Lowered("prefill", lowered)

    def _sampling(self, model: QwenModel) -> Any:
        return Sampler(model, self.mesh, eos_id=0, pad_id=0, vocab=self.vocab).programs

    def teacher_scores(self, settings: Any, student: QwenModel) -> Lowered:
        """The intrinsic reward of a stage rl; student: the teacher with source=start."""
        R, multiple = self.config.sampling.response_tokens, settings.batch_multiple
        longest = settings.teacher.longest_prompt(self.config) + R
        B, T = settings.prompts_per_step * settings.samples_per_prompt, round_up(longest, multiple)
        shards = sharding.batch_shards(self.mesh)
        if settings.fixed_calls:
            calls = settings.buckets.calls(longest, R, multiple, shards)
            B, T, R = max(calls, key=lambda call: (call.rows * call.T, call.T))  # most tokens
        model = self.teacher if settings.teacher.is_model else student
        how = (model, float(settings.rewards.alpha), self.vocab, self.rows)
        if settings.buckets.packed:
            score: Any = teachers.packed_program(*how)
            shared = shares_prompts(model, T)
            batch = {name: self._int(B, T) for name in packed_names(shared)}
        else:
            score = teachers.scoring_program(*how)
            arrays = (self._int(B, T), self._int(B), self._int(B), self._int(B, R))
            batch = dict(zip(NAMES, arrays, strict=True))
            if settings.teacher_shares_prompts(shards):
                S = round_up(settings.teacher.longest_prompt(self.config), multiple)
                batch["prompts_PS"] = self._int(settings.prompts_per_step, S)
        return Lowered("teacher scores", score.lower(self._params(model), batch))

    def _update(
        self, name: str, settings: Any, tx: Any, loss: Any, totals: Any, state: Any, frozen: Any,
        batch: Any,
    ) -> Lowered:  # fmt: skip
        where = states.state_shardings(state, tx, self.mesh)
        update: Any = make_update(
            loss, totals, tx, self.mesh, where, accumulate=settings.accumulate
        )
        number = jax.ShapeDtypeStruct((), jnp.int32)
        return Lowered(name, update.lower(state, frozen, batch, number, number))

    # --- shapes -------------------------------------------------------------------------------

    def _model(self, settings: Any, geometry: QwenConfig) -> QwenModel:
        return models.build(settings, geometry, lora=None, mesh=self.mesh)

    def _params(self, model: QwenModel) -> Any:
        found = model.shapes()
        return sharding.abstract(found, states.param_shardings(found, self.mesh))

    def _trained(self, mode: str) -> tuple[QwenModel, dict[str, Any], dict[str, Any]]:
        """(student, trainable, frozen); with all weights trained there is no adapter."""
        model = self.student if mode == "lora" else self.student.replace(lora=None)
        return model, *states.split(self._params(model), mode)

    def _int(self, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=self.rows)

    def _float(self, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=self.rows)

    def _given(self, B: int) -> dict[str, Any]:
        """Rows as `pack_examples` makes them, on the mesh."""
        new = self.config.sampling.response_tokens
        T = round_up(self.config.data.max_prompt_tokens + new, _MULTIPLE)
        R = round_up(new, _MULTIPLE)
        return {
            "tokens_BT": self._int(B, T),
            "prompt_len_B": self._int(B),
            "response_len_B": self._int(B),
            "targets_BR": self._int(B, R),
            "loss_mask_BR": self._float(B, R),
        }

    def _packed(self, settings: Any) -> dict[str, Any]:
        """Rows as `packing.pack` makes them, on the mesh."""
        E, T = settings.batch_size, settings.packing
        longest = self.config.data.max_prompt_tokens + self.config.sampling.response_tokens
        parts = settings.accumulate * sharding.batch_shards(self.mesh)
        B = packing.most_rows(E, longest, budget=T, parts=parts)
        ints = ("tokens_BT", "segment_BT", "targets_BR", "at_BR", "example_BR")
        made: dict[str, Any] = {name: self._int(B, T) for name in ints}
        return {**made, "loss_mask_BR": self._float(B, T), "place_BE": self._float(B, E)}

    def _rollout(self, settings: Any) -> RolloutBatch:
        new, multiple = self.config.sampling.response_tokens, settings.batch_multiple
        B = settings.prompts_per_step * settings.samples_per_prompt
        shared = settings.shares_prompts(sharding.batch_shards(self.mesh))
        S = round_up(self.config.data.max_prompt_tokens, multiple)
        R = round_up(new, multiple)
        T = S + R if shared else round_up(self.config.data.max_prompt_tokens + new, multiple)
        return RolloutBatch(
            tokens_BT=self._int(B, T),
            prompt_len_B=self._int(B),
            response_len_B=self._int(B),
            response_mask_BR=self._float(B, R),
            targets_BR=self._int(B, R),
            ended_B=jax.ShapeDtypeStruct((B,), jnp.bool_, sharding=self.rows),
            behaviour_logp_BR=self._float(B, R),
            prompts_PS=self._int(settings.prompts_per_step, S) if shared else None,
        )

    def _policy_batch(self, settings: Any, algorithm: Any, about: Any) -> PolicyBatch:
        """Of one update."""
        P, G = settings.prompts_per_step, settings.samples_per_prompt
        rollout = self._rollout(settings)
        R, values = rollout.targets_BR.shape[1], settings.uses_values
        # Which advantages there are depends on the algorithm alone, and on whole groups.
        scores = self._float(P * G, R)
        scored = ScoredRollout(
            response_mask_BR=scores, loss_mask_BR=scores, ended_B=rollout.ended_B,
            reward_PG=self._float(P, G), reward_BR=scores if values else None,
            old_logp_BR=scores if settings.needs_old else None,
            ref_logp_BR=scores if settings.reference_weight else None,
            entropy_BR=scores if settings.by_entropy else None,
            value_BR=scores if values else None,
            end_value_B=self._float(P * G) if values else None, terms=None,
        )  # fmt: skip
        made = jax.eval_shape(lambda x: algorithm.advantages(x, about)[0], scored)
        batch = PolicyBatch(
            tokens_BT=rollout.tokens_BT,
            prompts_PS=rollout.prompts_PS, prompt_len_B=rollout.prompt_len_B,
            targets_BR=rollout.targets_BR, loss_mask_BR=scores, behaviour_logp_BR=scores,
            old_logp_BR=scored.old_logp_BR, ref_logp_BR=scored.ref_logp_BR, advantages=made,
        )  # fmt: skip
        parts = settings.minibatches
        cut = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((x.shape[0] // parts, *x.shape[1:]), x.dtype), batch
        )
        placed: PolicyBatch = sharding.abstract(cut, self.rows)
        return placed

    def _exact_batch(self, settings: Any, policy: PolicyBatch) -> ExactBatch:
        B, R = policy.targets_BR.shape
        read = self._reread(settings.teacher, B, settings.batch_multiple)
        if read and policy.prompts_PS is not None:
            P = policy.prompts_PS.shape[0]
            S = round_up(settings.teacher.longest_prompt(self.config), settings.batch_multiple)
            read = {**read, "teacher_prompts_PS": self._int(P, S)}
            del read["teacher_tokens_BT"]
        return ExactBatch(policy, self._float(B, R), read)

    def _reread(self, teacher: Any, B: int, multiple: int) -> dict[str, Any]:
        """The rows behind the teacher's own prompts; {} where it reads the student's."""
        if not teacher.prompt:
            return {}
        T = teacher.longest_prompt(self.config) + self.config.sampling.response_tokens
        tokens_BT = self._int(B, round_up(T, multiple))
        return {"teacher_tokens_BT": tokens_BT, "teacher_prompt_len_B": self._int(B)}


def outputs(lowered: jax.stages.Lowered, compiled: jax.stages.Compiled) -> Any:
    """What the program returns, as placed shapes."""
    return sharding.abstract(lowered.out_info, compiled.output_shardings)
