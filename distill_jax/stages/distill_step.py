"""One distillation step: rows that were given or that the student draws, then the update."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from distill_jax.core import rng, sharding
from distill_jax.core.batching import filled
from distill_jax.curriculum.curriculum import Curriculum
from distill_jax.curriculum.rewards import bounded_gap
from distill_jax.data import batching, chat, padding
from distill_jax.data.padding import PaddedLengths
from distill_jax.data.problem import Problem
from distill_jax.evaluation.distribution import compare_on_responses, token_means
from distill_jax.evaluation.held_out import validation
from distill_jax.models.qwen import QwenModel
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.length_buckets import Scorer
from distill_jax.rewards.top_k import TopKScorer
from distill_jax.rollout import completions, rounds
from distill_jax.rollout.completions import Rollout
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.stages import batch_shapes, teacher_prompts
from distill_jax.stages import teacher as teachers
from distill_jax.stages.distill_rows import Rows
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.stages.first_rollout import Guard
from distill_jax.stages.supervised import MULTIPLE
from distill_jax.training import distillation
from distill_jax.training.state import TrainState, join
from distill_jax.training.step import make_update


def draws(settings: DistillSettings, key: jax.Array, step: int) -> bool:
    """Whether this step takes the student's samples: with probability λ, by the step's key."""
    if settings.data == "student_samples":
        return True
    if not settings.lmbda:
        return False
    drawn = jax.random.uniform(rng.stream_key(key, "distill lambda", step))
    return float(drawn) < settings.lmbda


def _own_figures(updated: Mapping[str, Any], ended_B: np.ndarray) -> dict[str, Any]:
    """The update's metrics on the student's tokens, as they are logged.

    teacher/mass_at_end is the teacher's mean probability of EOS where the student ended; without
    such a row there is none.
    """
    names = updated.keys() & {"overlap_sum", "overlap_tokens", "last_mass_B"}
    taken = sharding.fetch({name: updated[name] for name in names})
    out = {name: value for name, value in updated.items() if name not in names}
    if "overlap_sum" in taken:
        out["teacher/overlap_ratio"] = float(taken["overlap_sum"] / taken["overlap_tokens"])
    if "last_mass_B" in taken and ended_B.any():
        out["teacher/mass_at_end"] = float(taken["last_mass_B"][ended_B].mean())
    return out


class DistillStep:
    """The loop's step of stage distill: a function of (state, step), and compiled programs.

    Args:
        run: mesh, problems, task.
        stage: settings, randomness.
        student: the model that learns.
        frozen: its parameters that are not trained.
        teacher: the model that it learns from, with its weights.
        rows: problems with their given responses.
        curriculum: which of the rows a step takes.
        tx, shardings: optimiser; of the state.
        guard: of the first rollout; None: there is none.
    """

    def __init__(
        self,
        run: Run,
        stage: Stage[DistillSettings],
        student: QwenModel,
        frozen: Any,
        teacher: Loaded,
        rows: Rows,
        curriculum: Curriculum,
        tx: Any,
        shardings: TrainState,
        guard: Guard | None = None,
    ):
        self.run, self.student, self.teacher, self.rows = run, student, teacher, rows
        self.config, self.settings, self.key = run.config, stage.settings, run.key(stage)
        self.curriculum, self.guard = curriculum, guard
        self.frozen, self.sampler = frozen, run.models.sampler(student)
        self._rows = sharding.batch_sharding(run.mesh)
        self._prompts = teacher_prompts.make(run, stage.settings.teacher)
        self._compares = self.settings.loss.kd_weight > 0
        listed = self._compares and self.settings.loss.top_k
        self._scorer = self._top_k_scorer() if listed else None
        self._given = self._for_given()
        self._drawn_lengths = self._for_drawn()
        self._updates = {}
        for given in (True, False):
            # Only the future term, which is of drawn tokens, depends on how they are drawn.
            future = self.settings.loss.future and not given
            drawn_at = run.config.sampling.temperature if future else 1.0
            loss, totals = distillation.distill(
                student,
                teacher.model,
                self.settings.loss,
                run.data.vocab,
                given=given,
                samples=self.settings.samples if future else 1,
                drawn_at=drawn_at,
            )
            self._updates[given] = make_update(
                loss, totals, tx, run.mesh, shardings, accumulate=self.settings.accumulate
            )
        if self._given is not None and self._scorer is None:  # stored top k has other axes
            self._updates[True] = batch_shapes.compiled_ahead(
                run, self._updates[True], self._given.chosen
            )

    def __call__(
        self, state: TrainState, step: int
    ) -> tuple[TrainState, Mapping[str, Any], list[dict[str, Any]]]:
        """One update; metrics under TRL's names."""
        before = sharding.fetch(state.curriculum_state)
        index = self.curriculum.problem_ids(before, step)
        index_B = np.tile(index, self.settings.samples)
        examples = [self.rows.examples[i] for i in index_B]
        own = draws(self.settings, self.key, step)
        metrics: dict[str, Any] = rounds.counts(()) if self.settings.draws else {}
        records: list[dict[str, Any]] = []
        if own:
            problems = [self.rows.problems[i] for i in index_B]
            drawn = self._draw(state, step, problems, examples)
            examples, rollout, metrics, records = drawn
        if own or self._given is None:
            host = self._packed(examples, self._drawn_lengths)
        else:
            host = self._given.pack(examples)
        if own:  # outputs between its turns are not the student's
            mask_BR, ended_B = rollout.mask_BR, rollout.ended_B
            R = min(mask_BR.shape[1], host["loss_mask_BR"].shape[1])
            host["loss_mask_BR"][:, :R] *= mask_BR[:, :R]
        rows = np.eye(len(index_B), dtype=np.float32)
        places = {} if "place_BE" in host else {"place_BB": rows}
        batch = sharding.place({**host, **places}, self._rows)
        read = batch
        if self._prompts is not None:  # the student has drawn
            read = teachers.reread(self.run, host, self._prompts.of(problems), MULTIPLE)
            read = sharding.place(read, self._rows)
            batch |= {f"teacher_{name}": read[name] for name in distillation.READ}
        frozen = self.frozen
        if self._compares and self._scorer is None:
            frozen = {**frozen, "teacher": self.teacher.params}
        elif self._scorer is not None:
            scores = self._scorer.score(read)
            batch |= {f"teacher_{name}": x for name, x in scores._asdict().items()}
        update = self._updates[not own]
        state, updated = update(state, frozen, batch, np.int32(0), np.int32(1))
        # The signal is the gap to the teacher, in its share of 1; mastery is what is left of 1.
        gap_B = np.asarray(bounded_gap(sharding.fetch(updated.pop("rows_B"))))
        gap_P = gap_B.reshape(self.settings.samples, len(index)).mean(axis=0)
        learnt = self.curriculum.update(state.curriculum_state, index, gap_P, 1 - gap_P)
        state = dataclasses.replace(state, curriculum_state=learnt)
        updated = _own_figures(updated, ended_B) if own else updated
        metrics |= {**updated, **self.curriculum.metrics(before, learnt, step)}
        if own and step == 0 and self.guard is not None:
            self.guard.record(metrics)
        if isinstance(self._scorer, CachedTeacher):
            metrics |= self._scorer.metrics()
        if self.settings.lmbda:
            metrics["on_policy"] = float(own)
        metrics["epoch"] = (step + 1) * len(index) / len(self.curriculum.arms.kept)
        metrics["step_tokens"] = batch_shapes.tokens_of(host)
        metrics["step_response_tokens"] = batch_shapes.response_tokens_of(host)
        return state, metrics, records

    def _for_given(self) -> batch_shapes.Batches | None:
        """How batches of given responses become arrays; None where there are none.

        A curriculum that looks at its state takes other batches than those that are counted here:
        shuffled ones of all its problems.
        """
        s, curriculum = self.settings, self.curriculum
        if s.data == "student_samples":
            return None
        kept, known = curriculum.arms.kept, curriculum.method.one_shuffle
        batches = (
            kept[batching.batch_indices(curriculum.seed, step, s.prompts, len(kept))]
            for step in range(s.steps)
        )
        examples = self.rows.examples
        if s.packing:
            how = {"budget": s.packing, "accumulate": s.accumulate, "multiple": MULTIPLE}
            return batch_shapes.packed(self.run, examples, batches, **how)
        return batch_shapes.padded(self.run, examples, batches, multiple=MULTIPLE, known=known)

    def _for_drawn(self) -> Sequence[PaddedLengths]:
        """What batches of the student's own responses are padded to; empty where there are none."""
        if not self.settings.draws:
            return ()
        prompts, limit = [one.prompt for one in self.rows.examples], self.settings.drawn_lengths
        return batch_shapes.of_drawn(self.run, prompts, multiple=MULTIPLE, limit=limit)

    def weights(self, state: TrainState) -> Any:
        """Decode weights of the student in this state."""
        return self.sampler.weights(join(state.trainable, self.frozen), self.config.sampling)

    def _draw(
        self, state: TrainState, step: int, problems: Sequence[Problem], given: Sequence[Any]
    ) -> tuple[list[chat.Example], Rollout, dict[str, Any], list[dict[str, Any]]]:
        """The student's answers to these problems, as examples and as drawn, their figures, and
        rows to write down.

        Rows are the first sample of each problem, then the second of each, and so on: strided
        microbatches (training.step) hold all samples of a problem where they divide the problems.
        """
        samples = self.settings.samples
        prompts = [example.prompt for example in given[: len(given) // samples]]
        rollout = rounds.generate(
            self.sampler,
            self.weights(state),
            prompts,
            self.config.sampling,
            key=rng.stream_key(self.key, "distill rollout", step),
            prompt_ids=range(len(prompts)),
            samples=samples,
            replies=self.run.data.replies(),
        )
        counts = rounds.counts([(prompts, rollout)])
        order = np.arange(len(given)).reshape(len(prompts), samples).T.reshape(-1)
        rollout = Rollout(*(leaf[order] for leaf in rollout))
        if step == 0 and self.guard is not None:
            self.guard.check(rollout)
        ends = zip(rollout.tokens_BR, rollout.length_B, strict=True)
        responses = [row[:n].tolist() for row, n in ends]
        texts = [self.run.data.text(row) for row in rollout.own]
        lengths = rollout.mask_BR.sum(axis=1)
        judged = self.run.data.task.judge(problems, texts, rollout.ended_B)
        metrics = {
            "completions/mean_length": float(lengths.mean()),
            "completions/min_length": float(lengths.min()),
            "completions/max_length": float(lengths.max()),
            "completions/clipped_ratio": float(1.0 - rollout.ended_B.mean()),
            "accuracy": float(judged.right_B.mean()),
            "student/mass": completions.student_mass(rollout.behaviour_logp_BR, rollout.mask_BR),
            **counts,
        }
        records = [
            {
                "prompt": problem.question,
                "completion": text,
                "gold": problem.answer,
                "correctness": float(right),
            }
            for problem, text, right in zip(problems, texts, judged.right_B, strict=True)
        ]
        pairs = zip(given, responses, strict=True)
        examples = [chat.Example(one.prompt, response) for one, response in pairs]
        return examples, rollout, metrics, records

    def close(self) -> None:
        """Closes the cache of the teacher's scores."""
        if isinstance(self._scorer, CachedTeacher):
            self._scorer.close()

    def _top_k_scorer(self) -> Scorer | CachedTeacher:
        loss = self.settings.loss
        scorer = TopKScorer(
            self.teacher.model,
            self.teacher.params,
            self.run.mesh,
            k=loss.top_k,
            vocab=self.run.data.vocab,
            temperature=loss.temperature,
        )
        return teachers.cached(self.run, self.settings, scorer)

    # --- validation ---------------------------------------------------------------------------

    def validate(self, state: TrainState) -> dict[str, float]:
        """Figures under `eval/`: greedy accuracy, and how near the teacher's distribution is on the
        validation problems' own solutions, at temperature 1: the same tokens at each evaluation.
        """
        weights = self.weights(state)
        figures: dict[str, float] = validation(self.run, self.sampler, weights, self.settings)
        student, found = Loaded(self.student, join(state.trainable, self.frozen)), []
        for host, rows in self._held_out:
            batch = sharding.place(host, self._rows)
            scores = sharding.fetch(
                compare_on_responses(student, self.teacher, batch, self.run.data.vocab)
            )
            # Rows that fill the batch up count for nothing.
            kept = type(scores)(*(x_BR[:rows] for x_BR in scores))
            found.append((kept, host["response_len_B"][:rows]))
        near = token_means(found)
        # Without a solution that fits there is nothing to compare: 0 would be a figure.
        for name in ("forward_kl", "reverse_kl", "jensen_shannon", "top1_agreement"):
            value = near[name]
            if value is not None:
                figures[f"eval/{name}"] = float(value)
        return figures

    @functools.cached_property
    def _held_out(self) -> list[tuple[dict[str, np.ndarray], int]]:
        """Batches of validation solutions, each with how many of its rows are not filling."""
        data, size = self.run.data.problems("validation"), self.settings.batch_size
        problems = data.problems[: self.settings.eval_problems]
        task = self.run.data.task
        both = [(p, text) for p in problems if (text := task.response(p, bare=False)) is not None]
        problems, texts = [p for p, _ in both], [text for _, text in both]
        examples = chat.render_examples(self.run.data.tokenizer, problems, texts, task.chat)
        limit = self.config.sampling.max_new_tokens
        examples = [e for e in examples if len(e.response) <= limit]
        parts = [
            range(start, min(start + size, len(examples)))
            for start in range(0, len(examples), size)
        ]
        batches = [filled(rows, size) for rows in parts]
        chosen: Sequence[PaddedLengths] = ()
        if batches:
            held = batching.lengths_of(examples)
            chosen = padding.plan(held, batches, multiple=MULTIPLE).chosen
        packed = [self._packed([examples[i] for i in index], chosen) for index in batches]
        return [(host, len(rows)) for host, rows in zip(packed, parts, strict=True)]

    def _packed(
        self, examples: Sequence[chat.Example], chosen: Sequence[PaddedLengths]
    ) -> dict[str, np.ndarray]:
        pad_id = self.run.data.pad_id
        return batching.pack_examples(examples, pad_id=pad_id, multiple=MULTIPLE, chosen=chosen)
