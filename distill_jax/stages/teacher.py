"""The teacher of a stage: which model it is, and how it scores the stage's rollouts."""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core import digest, sharding
from distill_jax.data.padding import PaddedLengths
from distill_jax.data.problem import Problem
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.evaluation import subjects
from distill_jax.models import hf_io
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.length_buckets import BucketedTeacher, Scorer
from distill_jax.rewards.packed_teacher import PackedTeacher
from distill_jax.rewards.reprompted import with_prompts
from distill_jax.rewards.teacher import TeacherScorer, TeacherScores
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.stages import batch_shapes, teacher_prompts
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.stages.remote_teacher import RemoteTeacher
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.teacher_prompts import TeacherPrompts
from distill_jax.stages.teacher_routes import RoutedTeacher
from distill_jax.stages.teacher_settings import OWN, StageTeacherSettings

AnyScorer = Scorer | CachedTeacher | RoutedTeacher


class Teacher:
    """Scores the responses of a rollout, each after its prompt.

    A server is asked by a thread, so that the answers are judged meanwhile. With several processes
    it is not: what all of them do must be in one order.

    Args:
        run: mesh, padding.
        scorer: makes the scorer of tokens, with or without a cache.
        prompts: of the teacher's own; None: it reads the student's.
        multiple: rows behind its own prompts are padded to a multiple of it.
        remote: whether the scorer asks a server.
    """

    def __init__(
        self,
        run: Run,
        scorer: Callable[[], AnyScorer],
        prompts: TeacherPrompts | None = None,
        *,
        multiple: int = 1,
        remote: bool = False,
    ):
        self._run, self._prompts, self._multiple = run, prompts, multiple
        aside = remote and jax.process_count() == 1
        # The cache's file belongs to the thread that opens it.
        self._thread = ThreadPoolExecutor(1, "teacher") if aside else None
        self.scorer = self._call(scorer)()

    def launch(
        self, batch: RolloutBatch, problems: Sequence[Problem]
    ) -> Callable[[], TeacherScores]:
        """Begins to score a batch on the mesh; what is returned waits for the scores.

        problems: of each row.
        """
        read = batch.to_score()
        if self._prompts is not None:
            read = reread(self._run, read, self._prompts.of(problems), self._multiple)
            read = sharding.place(read, sharding.batch_sharding(self._run.mesh))
        routed = (problems,) if isinstance(self.scorer, RoutedTeacher) else ()
        return self._call(self.scorer.score, read, *routed)

    def metrics(self) -> dict[str, float]:
        """Of the cache, where there is one."""
        cached = isinstance(self.scorer, CachedTeacher | RoutedTeacher)
        return dict(self._call(self.scorer.metrics)()) if cached else {}

    def close(self) -> None:
        """Closes the cache and the connections."""
        parts = (self.scorer, getattr(self.scorer, "teacher", None))
        for one in parts:
            if isinstance(one, RemoteTeacher):
                one.closing = True  # first: what it is being asked would be awaited
        for one in parts:
            if isinstance(one, CachedTeacher | RemoteTeacher | RoutedTeacher):
                self._call(one.close)()
        if self._thread is not None:
            self._thread.shutdown()

    def _call(self, function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        """Calls it, in the thread where there is one; what is returned waits for the value."""
        if self._thread is not None:
            return self._thread.submit(function, *args).result
        value = function(*args)
        return lambda: value


def of_stage(
    run: Run,
    stage: Stage[RLSettings],
    start: Loaded,
    *,
    trained: Sequence[str] = (),
    lengths: Sequence[PaddedLengths] = (),
) -> Teacher | None:
    """The scorer of a stage rl; None where the intrinsic reward has no weight or is in the loss.

    start: the student that the stage starts from; trained: see `load`; lengths: of all batches,
    from `rl_programs.lengths`.
    """
    settings = stage.settings
    if not settings.rewards.intrinsic_weight or settings.rewards.exact:
        return None
    return Teacher(
        run,
        functools.partial(scorer, run, settings, start, trained=trained, lengths=lengths),
        teacher_prompts.make(run, settings.teacher),
        multiple=settings.batch_multiple,
        remote=settings.teacher.is_remote,
    )


def reread(
    run: Run, batch: Mapping[str, Any], prompts: Sequence[Sequence[int]], multiple: int
) -> dict[str, np.ndarray]:
    """The rows on the host, each response after the teacher's own prompt."""
    host = {name: np.asarray(x) for name, x in sharding.fetch(dict(batch)).items()}
    return with_prompts(host, prompts, pad_id=run.data.pad_id, multiple=multiple)


def load(
    run: Run, settings: StageTeacherSettings, start: Loaded, *, trained: Sequence[str] = ()
) -> Loaded:
    """The teacher with its weights on the mesh.

    Of source=start it shares the arrays of the start; `trained` names its parts, base or lora,
    that updates take away: those are copied.
    """
    if settings.is_model:
        return run.models.load("teacher")
    copies = {name: jax.tree.map(jnp.copy, start.params[name]) for name in trained}
    return Loaded(start.model, {**start.params, **copies})


def scorer(
    run: Run,
    settings: RLSettings,
    start: Loaded,
    *,
    trained: Sequence[str] = (),
    lengths: Sequence[PaddedLengths] = (),
) -> AnyScorer:
    """The teacher's Q and V of each token: in length buckets and with a cache where set.

    Arguments: `of_stage`.
    """
    if settings.teacher.is_remote:
        return cached(run, settings, RemoteTeacher(run, settings.teacher))
    loaded = load(run, settings.teacher, start, trained=trained)
    if not settings.teacher.models:
        return cached(run, settings, _scoring(run, settings, loaded, lengths))
    found = {OWN: cached(run, settings, _scoring(run, settings, loaded))}
    for name, path in settings.teacher.paths.items():
        directory = hf_io.model_dir(path)
        other = run.models.load("teacher", base=directory)
        made = _scoring(run, settings, other, name=f"teacher {name}")
        found[name] = cached(run, settings, made, run.digest(directory))
    return RoutedTeacher(settings.teacher, cast(Any, found), run.mesh)


def _scoring(
    run: Run,
    settings: RLSettings,
    loaded: Loaded,
    lengths: Sequence[PaddedLengths] = (),
    *,
    name: str = "teacher",
) -> Scorer:
    """Of one teacher; several score a part of a batch each, in calls of fixed shapes always."""
    made = TeacherScorer(
        loaded.model, loaded.params, run.mesh, alpha=settings.rewards.alpha, vocab=run.data.vocab,
        ahead=_ahead(run, settings, lengths, name),
    )  # fmt: skip
    if not settings.fixed_calls:
        return made
    response, buckets = run.config.sampling.response_tokens, settings.buckets
    sizes = buckets.sizes(_longest(run, settings), settings.batch_multiple)
    if buckets.packed:
        return PackedTeacher(made, run.mesh, sizes=sizes)
    return BucketedTeacher(made, run.mesh, sizes=sizes, rows=buckets.rows, response=response)


def _longest(run: Run, settings: RLSettings) -> int:
    """Tokens of a row that it scores at most."""
    return settings.teacher.longest_prompt(run.config) + run.config.sampling.response_tokens


def _ahead(
    run: Run, settings: RLSettings, lengths: Sequence[PaddedLengths], name: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Of a teacher's programs; its calls have fixed shapes, or those of the batches."""
    ahead = functools.partial(batch_shapes.compiled_ahead, run, name=name, fixed=1)
    if settings.fixed_calls:
        calls = settings.buckets.calls(
            _longest(run, settings), run.config.sampling.response_tokens,
            settings.batch_multiple, sharding.batch_shards(run.mesh),
        )  # fmt: skip
        return functools.partial(ahead, chosen=[PaddedLengths(T, R) for _, T, R in calls])
    # Behind its own prompts rows have other lengths; what a cache lacks has other numbers of rows.
    changed = settings.teacher.prompt or (settings.cache.megabytes and not settings.cache.rows)
    chosen = () if changed else lengths
    return functools.partial(ahead, chosen=chosen, columns=batch_shapes.drawn_columns(run))


def cached(
    run: Run, settings: RLSettings | DistillSettings, made: Scorer, weights: str = ""
) -> Scorer | CachedTeacher:
    """The scorer behind a cache, where one is set; weights: a digest, "" of the stage's teacher."""
    if not settings.cache.megabytes:
        return made
    return CachedTeacher(
        made,
        run.mesh,
        settings.cache,
        model=_name(run, settings, made, weights),
        tokenizer=digest.of(run.data.tokenizer.backend_tokenizer.to_str()),
        warn=run.say,
    )


def _name(run: Run, settings: RLSettings | DistillSettings, made: Scorer, weights: str) -> str:
    """What the teacher's scores depend on, for keys of the cache."""
    if settings.teacher.is_remote:
        return str(made.model)
    weights = weights or " ".join(digests(run, settings).values())
    return f"{weights} {run.config.teacher.quantise}" if settings.teacher.is_model else weights


def digests(run: Run, settings: Any) -> dict[str, str]:
    """Digests of the weights of the teacher of a stage of kind rl or distill, by part."""
    if settings.teacher.is_model:
        return subjects.teacher(run).weights
    return run.student_digests(run.student(settings.start))
