"""A teacher behind a server: log π_T(a) of each token, with V ≡ 0, as the canonical reward asks."""

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError, EndpointError
from distill_jax.data.chat import render_examples
from distill_jax.rewards.length_buckets import NAMES
from distill_jax.rewards.teacher import TeacherScores
from distill_jax.run.run import Run, Stage
from distill_jax.run.stop import GO_ON, Interrupted
from distill_jax.stages import teacher_prompts
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.teacher_settings import StageTeacherSettings
from distill_jax.synthesis import client
from distill_jax.synthesis.asking import Asker, StoppedError
from distill_jax.synthesis.scores import Read, Row

# Sequences in flight with the one that is asked again.
_OTHERS = 7
# A server with another tokenizer gives other texts to the ids; one that writes signs in another
# way than this tokenizer does differs in a few.
_MOST_OTHER_TEXTS = 0.5


class RemoteTeacher:
    """Has the `score` of `TeacherScorer`, at temperature 1; process 0 asks the server.

    To be used by one thread at a time, and closed by the same. Either all rows of a batch are
    scored or an error is raised. Scores beyond a response's length are 0.
    """

    def __init__(self, run: Run, settings: StageTeacherSettings):
        s = settings.endpoint
        self.settings, self.kind, self.closing = s, "scores", False
        self.alphas: tuple[float, ...] = (1.0,)
        self.vocab, self.model = run.data.vocab, f"{client.label(s)} {s.model}"
        self._run, self._where = run, sharding.batch_sharding(run.mesh)
        self._endpoint = client.Endpoint(s)
        self._runner: asyncio.Runner | None = None
        self.asker = Asker(self._endpoint.post, s, stop=self._stops, say=run.say)

    def score(self, batch: dict[str, Any]) -> TeacherScores:
        """Scores of a batch on the mesh, see `score_rows`."""
        host = sharding.fetch({name: batch[name] for name in NAMES})
        return TeacherScores(*sharding.place(tuple(self.score_rows(host)), self._where))

    def score_rows(self, batch: dict[str, Any]) -> TeacherScores:
        """Scores of any number of rows on the host.

        Raises:
            EndpointError: the server refuses, or fails until the deadline.
            Interrupted: asked to stop while it fails.
        """
        host = {name: np.asarray(batch[name]) for name in NAMES}
        found, error = np.zeros(host["targets_BR"].shape, np.float32), ""
        if jax.process_index() == 0:
            try:
                for row, read in enumerate(self.ask(_rows(host))):
                    found[row, : len(read.logp)] = read.logp
            except (EndpointError, StoppedError) as one:
                error = _said(one)
        # All processes stop, or all go on with the same scores.
        _raise(sharding.text_of_first_process(error))
        found = sharding.of_first_process(found)
        zero_BR, zero_B = np.zeros_like(found), np.zeros(len(found), np.float32)
        return TeacherScores(found, zero_BR, zero_B)  # type: ignore[arg-type]

    def ask(self, rows: Sequence[Row]) -> list[Read]:
        """What the server says of each row; rows without a response are not asked about."""
        asked = [row for row in rows if row.response]
        if self._runner is None:
            self._runner = asyncio.Runner()
            self._runner.run(self._endpoint.__aenter__())
        found = iter(self._runner.run(self.asker.ask(asked)))
        return [next(found) if row.response else Read("ok") for row in rows]

    def program(self, local: str, tokens: int) -> str:
        """The server's: which of this machine's programs run says nothing."""
        del local, tokens
        return "remote"

    def _stops(self) -> bool:
        return self.closing or self._run.stop.asked

    def close(self) -> None:
        """Closes the connections; what is being asked ends first: set `closing` to hurry it."""
        if self._runner is not None:
            self._runner.run(self._endpoint.__aexit__())
            self._runner.close()
            self._runner = None


def _rows(host: dict[str, np.ndarray]) -> list[Row]:
    parts = zip(*(host[name] for name in NAMES), strict=True)
    return [
        Row(tuple(tokens[:p].tolist()), tuple(targets[:n].tolist()))
        for tokens, p, n, targets in parts
    ]


def _said(error: EndpointError | StoppedError) -> str:
    if isinstance(error, StoppedError):
        return json.dumps([str(error)])
    return json.dumps([error.message, error.wanted, error.fix])


def _raise(error: str) -> None:
    """Raises what `_said` wrote; nothing for ""."""
    if not error:
        return
    said, *more = json.loads(error)
    if not more:
        raise Interrupted(f"asked to stop while the teacher's server fails ({said}); {GO_ON}")
    wanted, fix = more
    raise EndpointError(said, wanted=wanted, fix=fix)


def check(run: Run, stage: Stage[RLSettings]) -> None:
    """Asks about one sequence alone, then again twice among others, before any stage begins.

    Raises:
        ConfigError: no address, or no key.
        MissingExtraError: without the package openai.
        EndpointError: no answer; other tokens; scores that differ by more than the tolerance.
    """
    settings = stage.settings.teacher
    if not settings.endpoint.base_url and not os.environ.get("OPENAI_BASE_URL", "").strip():
        raise ConfigError(
            f"{stage.name}.teacher.endpoint.base_url is empty and $OPENAI_BASE_URL is not set",
            wanted="the address of the teacher's server",
        )
    teacher, error = RemoteTeacher(run, settings), ""
    if jax.process_index() == 0:
        try:
            _compare(run, stage, teacher)
        except (EndpointError, StoppedError) as one:
            error = _said(one)
        finally:
            teacher.close()
    _raise(sharding.text_of_first_process(error))


def _compare(run: Run, stage: Stage[RLSettings], teacher: RemoteTeacher) -> None:
    name, tolerance = client.label(teacher.settings), teacher.settings.tolerance
    first, *others = _solved(run, stage)
    (alone,) = teacher.ask([first])
    again = [read.logp for read in teacher.ask([first, *others, first])]
    for logp in (again[0], again[-1]):
        most = float(np.abs(np.subtract(logp, alone.logp)).max())
        if most > tolerance:
            raise EndpointError(
                f"teacher's server {name} gave log-probabilities {most:.3g} nats apart to one "
                "sequence that was asked about alone and among others",
                wanted=f"at most {tolerance:g}",
                fix="serve the model in a dtype and with kernels that do not depend on the batch, "
                f"or raise {stage.name}.teacher.endpoint.tolerance",
            )
    _compare_texts(run, name, first, alone)
    mean = float(np.mean(alone.logp))
    run.say(f"{stage.name}: {name} scores; mean log-probability of a solution {mean:.2f}")


def _compare_texts(run: Run, name: str, row: Row, read: Read) -> None:
    """Raises EndpointError where the server's tokenizer gives other texts to the ids."""
    ours = [run.data.tokenizer.decode([token]).strip() for token in row.response]
    theirs = [None if text is None else text.strip() for text in read.texts]
    # Part of a sign has no text, and a special token may be shown or not.
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a and b and "�" not in a + b]
    other = [pair for pair in pairs if pair[0] != pair[1]]
    if len(other) > _MOST_OTHER_TEXTS * len(pairs):
        raise EndpointError(
            f"teacher's server {name} reads {len(other)} of {len(pairs)} tokens as other texts, "
            f"first {other[0][0]!r} as {other[0][1]!r}",
            wanted="a model with the student's tokenizer",
        )


def _solved(run: Run, stage: Stage[RLSettings]) -> list[Row]:
    """Worked solutions of a few training problems behind the prompts that the teacher reads."""
    train, task = run.data.problems("train").first(1 + _OTHERS), run.data.task
    own = teacher_prompts.make(run, stage.settings.teacher)
    prompts = train.prompts if own is None else own.of(train.problems)
    texts = [task.response(one, bare=False) or one.answer for one in train.problems]
    examples = render_examples(run.data.tokenizer, train.problems, texts, task.chat, prompts)
    return [Row(tuple(one.prompt), tuple(one.response)) for one in examples]
