"""Solves a problem with many candidates, and shows how one of them is selected.

    python -m launch.solve --workdir=runs/tiny "Tom has 15 pens, drops 6 and uses 2. How many now?"
    python -m launch.solve --workdir=runs/tiny --file=problems.jsonl --json > results.jsonl
    echo "What is 2 + 2?" | python -m launch.solve --workdir=runs/tiny --n=8

Problems are an argument, the rows of a file (.jsonl, .json or .parquet, with the columns of
data.source; the gold answer may be missing), or the lines of standard input. Settings are those of
the plan's last stage of kind solve, else the defaults with the last student; flags replace them.
--json prints one result object a line and nothing else; launch/README.md describes it.
"""

from collections.abc import Sequence

from absl import flags

from distill_jax.run.config import build
from launch import arguments
from launch import main as main_job

flags.adopt_module_key_flags(main_job)
_FILE = flags.DEFINE_string("file", None, "File of problems: .jsonl, .json or .parquet.")
_JSON = flags.DEFINE_bool("json", False, "Print result objects alone, one a line.")
_N = flags.DEFINE_integer("n", None, "Candidates of each agent.", lower_bound=1)
_AGENTS = flags.DEFINE_string("agents", None, "File of agents, JSON or JSONL.")
_SELECTOR = flags.DEFINE_string("selector", None, "Selector whose choice is the answer.")
_MODEL = flags.DEFINE_string("model", None, "base, a stage that makes a student, or a directory.")
_REWARD = flags.DEFINE_string("reward_model", None, "A stage that makes one, or a directory.")
_SEARCH = flags.DEFINE_string("search", None, "beam or dvts: search with the reward model.")
_VERIFY = flags.DEFINE_integer(
    "verify", None, "Groups of equal answers that are verified.", lower_bound=0
)
_ROUNDS = flags.DEFINE_integer("rounds", None, "Rounds of revision at most.", lower_bound=0)


def _job(guard: arguments.OneLine, argument: Sequence[str]) -> None:
    main_job.refuse_flags_of_stages()
    config = build(main_job.CONFIG.value)
    workdir = guard.directory = main_job.workdir_of(config)
    config = main_job.start_reading(config)
    from distill_jax.run.run import Run
    from launch import solve_problems as job

    asked = job.Request(
        attempts=_N.value,
        agents=_AGENTS.value,
        selector=_SELECTOR.value,
        model=_MODEL.value,
        reward_model=_REWARD.value,
        search=_SEARCH.value,
        verify=_VERIFY.value,
        rounds=_ROUNDS.value,
    )
    how = asked.settings(config, workdir)
    problems = job.problems_of(argument, _FILE.value)
    with Run(job.without_drops(config), workdir) as run:
        job.solve(run, how, problems, as_json=_JSON.value)


if __name__ == "__main__":
    arguments.run_app(_job, "configs/rl.py or configs/rl.py:smoke", texts=True)
