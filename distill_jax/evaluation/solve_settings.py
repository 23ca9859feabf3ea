"""The settings of stage solve."""

from dataclasses import dataclass
from typing import ClassVar

from distill_jax.core import unread
from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.data.sources import NAMES, check_benchmark
from distill_jax.evaluation.evidence import KINDS
from distill_jax.evaluation.selection import SELECTORS
from distill_jax.inference.agents import DEFAULT, MAX_ATTEMPTS, MAX_PROBLEMS, Agent
from distill_jax.inference.search import SEARCHES, Shape
from distill_jax.run.settings import TASK, Shared, StageSettings

# Selectors that need a reward model's scores.
SCORED = ("best", "weighted", "weighted_verdict")


@dataclass(frozen=True)
class SolveSettings(StageSettings, kind="solve", makes="results"):
    """Many candidates of each problem, and the selection of one."""

    UNREAD: ClassVar = (
        Unread(
            ("temperature", "top_p"),
            ("agents", "plain"),
            lambda agents, plain: agents and not plain,
        ),
        Unread(
            ("threshold",),
            ("rounds", "reward_model"),
            lambda rounds, reward_model: not (rounds and reward_model),
        ),
        Unread(("evidence",), ("rounds",), off),
        Unread(("width", "max_steps"), ("search",), off),
    )

    model: str = setting(
        "base", "Student that solves: base, a stage, or a directory.", ref="student"
    )
    reward_model: str = setting(
        "",
        "Process reward model, of a stage or a directory; empty: nothing is scored.",
        ref="reward_model",
    )
    split: str = setting("test", "Split of the problems.", choices=("test", "validation", "train"))
    benchmark: str = setting(
        "", f"Problems instead of a split's: {', '.join(NAMES)}, a file or a directory."
    )
    problems: int = setting(100, "Problems, the first ones.", low=1, high=MAX_PROBLEMS)
    attempts: int = setting(
        4, "Candidates of each agent; of a search, beams drawn at a time (N).", low=1,
        high=MAX_ATTEMPTS,
    )  # fmt: skip
    search: str = setting(
        "",
        "Search over steps with the reward model, instead of independent candidates: beam keeps "
        "the best N/width beams of all, dvts the best one in each of N/width trees; empty: none.",
        choices=("", *SEARCHES),
    )
    width: int = setting(4, "Continuations that a search draws of each beam.", low=2)
    max_steps: int = setting(
        40, "Steps of a search at most; the last draws the rest of each solution.", low=1
    )
    agents: str = setting(
        "", "File of agents, JSON or JSONL; empty: one, as stage evaluate samples.", ref="file"
    )
    temperature: float = setting(
        1.0, "Temperature of the one agent without a file, and of plain samples.", above=0.0
    )
    top_p: float = setting(1.0, "Nucleus mass of the same.", above=0.0, high=1.0)
    verify: int = setting(
        0, "Groups of equal answers that the model verifies, the strongest first.", low=0
    )
    rounds: int = setting(0, "Rounds of revision at most.", low=0, high=2)
    evidence: tuple[str, ...] = setting(
        tuple(KINDS), "Kinds of evidence against a candidate that have it revised."
    )
    threshold: float = setting(
        0.5, "A step scored below this is evidence against its candidate.", low=0.0, high=1.0
    )
    selector: str = setting("majority", "Selector that is reported first.", choices=SELECTORS)
    plain: bool = setting(
        True,
        "Compare with plain samples of one agent at equal tokens, and revisions with new samples "
        "in their place.",
    )
    batch: int = setting(256, "Completions decoded at a time.", low=1, affects="rounding")

    def __post_init__(self) -> None:
        check_benchmark(self.benchmark)
        if self.benchmark and self.split != type(self).split:
            raise ConfigError(f"split={self.split} with benchmark={self.benchmark}", wanted="one")
        if self.selector in SCORED and not self.reward_model:
            raise ConfigError(
                f"selector={self.selector} with reward_model={self.reward_model!r}",
                wanted="a reward model: it weighs candidates by their scores",
                fix="set reward_model, or selector=majority",
            )
        if self.selector == "weighted_verdict" and not self.verify:
            raise ConfigError("selector=weighted_verdict with verify=0", wanted="verify above 0")
        unread.refuse(unread.find(self))
        self._check_search()
        self._check_evidence()

    def _check_evidence(self) -> None:
        if unknown := [name for name in self.evidence if name not in KINDS]:
            raise ConfigError(
                f"evidence={self.evidence} with {unknown[0]}", wanted=f"of {', '.join(KINDS)}"
            )
        if self.rounds and not self.evidence:
            raise ConfigError(f"rounds={self.rounds} with evidence=()", wanted="a kind of evidence")

    def _check_search(self) -> None:
        if not self.search:
            return
        for name in ("agents", "rounds"):
            if getattr(self, name):
                raise ConfigError(
                    f"search={self.search} with {name}={getattr(self, name)}",
                    wanted="one agent and no revisions: beams of one distribution are compared",
                )
        if not self.reward_model:
            raise ConfigError(
                f"search={self.search} with reward_model=''",
                wanted="a reward model: it decides which beams are kept",
            )
        if self.attempts % self.width or self.attempts > MAX_ATTEMPTS // 2:
            raise ConfigError(
                f"search={self.search} with attempts={self.attempts} and width={self.width}",
                wanted=f"a multiple of width, at most {MAX_ATTEMPTS // 2}",
            )

    def check_with(self, shared: Shared, name: str) -> None:
        """Raises ConfigError for a search where completions have several turns."""
        if self.search and shared.sampling.rounds > 1:
            raise ConfigError(
                f"{name}.search={self.search} with sampling.rounds={shared.sampling.rounds}",
                wanted="sampling.rounds=1: beams are continued step by step, without outputs",
            )

    def shared(self) -> tuple[str, ...]:
        """The settings of the student, its data and its sampling."""
        return ("seed", "tokenizer_size", *TASK, "data", "sampling", "student", "lora")

    def roles(self) -> tuple[str, ...]:
        """The student's base is loaded."""
        return ("student",)

    def splits(self) -> tuple[str, ...]:
        """The split that is solved, or the benchmark."""
        return (self.benchmark or self.split,)

    @property
    def selectors(self) -> tuple[str, ...]:
        """The selectors that these settings allow."""
        found = SELECTORS if self.reward_model else ("first", "majority")
        return tuple(one for one in found if self.verify or one != "weighted_verdict")

    @property
    def shape(self) -> Shape:
        """The size of the search."""
        trees, kept = SEARCHES[self.search](self.attempts // self.width)
        return Shape(trees, kept, self.width)

    def default_agent(self) -> Agent:
        """The one agent of plain sampling."""
        return Agent(DEFAULT, temperature=self.temperature, top_p=self.top_p)
