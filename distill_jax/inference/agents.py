"""Agents: one model asked in several ways, each with a system prompt, temperature and weight."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from distill_jax.core import rng, settings
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.data.chat import ChatSettings, Prompts
from distill_jax.data.problem import Problem
from distill_jax.data.rows import read_rows
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.run.run import Run
from distill_jax.tasks import TASKS

MAX_AGENTS, MAX_ATTEMPTS, MAX_PROBLEMS = 64, 1024, 65536
DEFAULT = "default"


@dataclass(frozen=True)
class Agent:
    """A row of a file of agents."""

    name: str = setting("", "Name in results.")
    system: str | None = setting(None, "System message; None is data.chat.system_prompt.")
    temperature: float = setting(1.0, "Divides the logits; 0 decodes greedily.", low=0.0)
    top_p: float = setting(1.0, "Nucleus mass kept; 1 is off.", above=0.0, high=1.0)
    weight: float = setting(1.0, "Weight of its candidates' votes.", low=0.0)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("an agent without a name", wanted='a text, e.g. "name": "careful"')

    def sampling(self, limits: SamplingSettings) -> SamplingSettings:
        """How the agent draws: its temperature and top-p with a run's limits, no top-k."""
        return dataclasses.replace(limits.whole(self.temperature), top_p=self.top_p)

    def chat(self, plain: ChatSettings) -> ChatSettings:
        """The prompt format with the agent's system message."""
        if self.system is None:
            return plain
        return dataclasses.replace(plain, system_prompt=self.system)


def load(path: Path) -> tuple[Agent, ...]:
    """The agents of a JSON or JSONL file, in its order.

    Raises:
        DataError: no file, or one that is not JSON.
        ConfigError: an unknown key, a value outside its limits, two agents of one name, too many,
            or no agent whose votes count.
    """
    if not path.is_file():
        raise DataError(f"no file of agents {path}", wanted="a .json or .jsonl file")
    found: list[Agent] = []
    for where, row in read_rows(path):
        try:
            agent = settings.build(Agent, row)
        except ConfigError as error:
            got = f"{where}: {error.message}"
            raise ConfigError(got, wanted=error.wanted, fix=error.fix) from error
        if agent.name in {other.name for other in found}:
            raise ConfigError(f"{where}: a second agent {agent.name!r}", wanted="unique names")
        found.append(agent)
    if len(found) > MAX_AGENTS:
        raise ConfigError(f"{path}: {len(found)} agents", wanted=f"at most {MAX_AGENTS}")
    if not any(agent.weight for agent in found):
        raise ConfigError(f"{path}: every agent has weight 0", wanted="a weight above 0")
    return tuple(found)


def check_attempts(agents: Sequence[Agent], attempts: int) -> None:
    """Raises ConfigError where an agent's attempts would all be the same completion."""
    greedy = [agent.name for agent in agents if agent.temperature == 0.0]
    if attempts > 1 and greedy:
        raise ConfigError(
            f"attempts={attempts} of agent {greedy[0]} with temperature 0",
            wanted="a temperature above 0: its attempts would all be the same",
        )


def key_of(key: jax.Array, number: int) -> jax.Array:
    """The key of an agent's candidates; the sampler folds in the numbers of problem and attempt.

    Agent 0 has the key itself: a single agent draws what plain sampling draws with it.
    """
    return key if number == 0 else rng.stream_key(key, "agent", number)


def request_id(problem: int, agent: int, attempt: int) -> int:
    """The sampler's number of a draw for one candidate, which does not depend on the batch.

    Below 2³² with problem < 65536, agent < 64 and attempt < 1024.
    """
    return (problem * MAX_AGENTS + agent) * MAX_ATTEMPTS + attempt


def prompts(
    run: Run, problems: Sequence[Problem], agents: Sequence[Agent]
) -> tuple[Prompts, list[list[list[int]]]]:
    """The problems whose prompt fits for every agent: their plain prompts, and [agent][problem].

    Raises:
        DataError: a prompt is too long under data.on_long_prompt=error, or none fits.
    """
    plain = run.data.task.prompts(problems)
    made = [plain if agent.system is None else _own(run, plain.problems, agent) for agent in agents]
    fitting = set.intersection(*({p.id for p in one.problems} for one in (plain, *made)))
    if not fitting:
        raise DataError(
            "no problem has a prompt that fits for every agent", fix="raise data.max_prompt_tokens"
        )
    kept = [_only(one, fitting) for one in (plain, *made)]
    first = kept[0]._replace(dropped=len(problems) - len(fitting))
    return first, [one.prompts for one in kept[1:]]


def _own(run: Run, problems: Sequence[Problem], agent: Agent) -> Prompts:
    data = dataclasses.replace(run.config.data, chat=agent.chat(run.config.data.chat))
    task = TASKS[run.config.task](data, run.data.tokenizer, run.config.programs)
    return task.prompts(problems)


def _only(found: Prompts, ids: set[str]) -> Prompts:
    both = [pair for pair in zip(found.problems, found.prompts, strict=True) if pair[0].id in ids]
    return Prompts([problem for problem, _ in both], [prompt for _, prompt in both], 0)
