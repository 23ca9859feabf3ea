"""Do two versions of the code give the same bits? Runs the same configs in both and compares.

    python -m launch.bench.same_bits 44af24f . --old_runs=/tmp/old
    python -m launch.bench.same_bits ../before . --configs=rl --tiny

OLD and NEW are checkouts (directories) or git revisions of this repository. All files of the work
directories are compared, except records and pictures: weights byte for byte, JSON and JSONL without
times, dates, versions and the work directory's path. A file that only one of them has is a
difference, unless --ignore or --rename covers it.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill_jax.core.errors import ConfigError, DistillError
from distill_jax.core.files import read_json, write_json
from launch.arguments import ROOT, OneLine, tool_parser
from launch.bench.outputs import DIFFERS, RECORDS, SAME, Compared, Rules, compare

CONFIGS = ("rl", "distill", "curriculum")
_DONE = ".same_bits.json"


class RunFailed(DistillError, RuntimeError):
    """A run of one of the two versions did not end well."""


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints; ConfigError where it fails."""
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def checkout(version: str, scratch: Path) -> Iterator[Path]:
    """A directory with the code: `version` itself, or a worktree of that revision for a while.

    Raises:
        ConfigError: neither a checkout nor a revision.
    """
    if Path(version).is_dir():
        if not (Path(version) / "launch" / "main.py").is_file():
            raise ConfigError(f"{version} has no launch/main.py", wanted="a checkout")
        yield Path(version).resolve()
        return
    try:
        commit = git(ROOT, "rev-parse", "--verify", f"{version}^{{commit}}")
    except ConfigError as error:
        got = f"{version} is no directory and no revision"
        raise ConfigError(got, wanted="a checkout or a git revision") from error
    git(ROOT, "worktree", "add", "--detach", str(scratch), commit)
    try:
        yield scratch
    finally:
        git(ROOT, "worktree", "remove", "--force", str(scratch))


def version_of(code: Path) -> str:
    """The commit of a checkout; with "+changes" where files differ from it."""
    changed = git(code, "status", "--porcelain", "--untracked-files=no")
    return git(code, "rev-parse", "HEAD") + ("+changes" if changed else "")


def run(code: Path, config: str, workdir: Path, overrides: Sequence[str] = ()) -> None:
    """Runs a config, e.g. rl:smoke, with NAME=VALUE overrides in a process of that checkout.

    The work directory is emptied first.

    Raises:
        RunFailed: exit code other than 0; names the log.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.parent.mkdir(parents=True, exist_ok=True)
    name, _, preset = config.partition(":")
    command = [
        sys.executable, "-m", "launch.main", f"--config=configs/{name}.py:{preset}",
        f"--workdir={workdir}", *(f"--config.{setting}" for setting in overrides),
    ]  # fmt: skip
    # The code of the checkout and no other: -m puts the current directory first.
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    log = workdir.with_suffix(".log")
    with log.open("w") as out:
        exit_code = subprocess.run(
            command, cwd=code, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False
        ).returncode
    if exit_code:
        last = "".join(log.read_text(errors="replace").strip().splitlines()[-1:])
        raise RunFailed(f"{config} in {code}: exit code {exit_code}: {last}", fix=f"see {log}")
    write_json(workdir.with_suffix(_DONE), {"version": version_of(code), "set": list(overrides)})


def finished(code: Path, workdir: Path, overrides: Sequence[str]) -> bool:
    """Whether an earlier comparison finished this run with the same commit and settings.

    Raises:
        ConfigError: it did with others.
    """
    note = read_json(workdir.with_suffix(_DONE))
    now = version_of(code)
    if note is None or now.endswith("+changes"):
        return False
    wanted = {"version": now, "set": list(overrides)}
    if note != wanted:
        got = f"{workdir} was made by {note}"
        raise ConfigError(got, wanted=str(wanted), fix="use another --old_runs")
    return True


def table(found: dict[str, list[Compared]]) -> Table:
    """A row for each config, and one for each file that is not the same."""
    out = Table("config", title="OLD and NEW")
    for name in ("file", "result"):
        out.add_column(name, overflow="fold")
    for config, files in found.items():
        same = sum(file.status == SAME for file in files)
        weights = sum(file.path.endswith(".safetensors") for file in files)
        out.add_row(config, f"{len(files)}, {weights} of weights", f"{same} the same")
        for file in files:
            if file.status != SAME:
                detail = f"{DIFFERS}: {file.detail}" if file.detail else file.status
                out.add_row("", escape(file.path), escape(detail))
    return out


def _parser() -> argparse.ArgumentParser:
    codes = "Exit codes: 0 the same bits, 1 not, 2 wrong input or a failed run."
    parser = tool_parser("bench.same_bits", __doc__, codes)
    parser.add_argument("old", metavar="OLD", help="a checkout or a git revision")
    parser.add_argument("new", metavar="NEW", help="a checkout or a git revision")
    default = ",".join(CONFIGS)
    parser.add_argument("--configs", default=default, help="run as :smoke (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="also configs/rl.py:tiny (minutes)")
    keep = "keep the runs of OLD, reuse finished ones"
    parser.add_argument("--old_runs", type=Path, metavar="DIR", help=keep)
    parser.add_argument("--new_runs", type=Path, metavar="DIR", help="keep the runs of NEW")
    for name, metavar, meaning in (
        ("ignore", "PATTERN", f"files not compared, in addition to {' '.join(RECORDS)}"),
        ("rename", "OLD=NEW", "file, stem or directory that has another name in NEW's runs"),
        ("set", "NAME=VALUE", "a setting of both versions, e.g. experiment.seeds=(0,)"),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], metavar=metavar, help=meaning)
    return parser


def _renamed(text: str) -> tuple[str, str]:
    before, equals, after = text.partition("=")
    if not (before and equals and after):
        raise ConfigError(f"--rename={text}", wanted="OLD=NEW, e.g. evaluate/before=evaluate/sft")
    return before, after


def measure(flags: argparse.Namespace) -> dict[str, list[Compared]]:
    """Runs what is not finished, compares; files by config."""
    configs = [f"{name}:smoke" for name in flags.configs.split(",") if name]
    configs += ["rl:tiny"] if flags.tiny else []
    rules = Rules((*RECORDS, *flags.ignore), [_renamed(text) for text in flags.rename])
    found = {}
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="same_bits_")))
        old = stack.enter_context(checkout(flags.old, scratch / "old_code"))
        new = stack.enter_context(checkout(flags.new, scratch / "new_code"))
        olds = (flags.old_runs or scratch / "old").absolute()
        news = (flags.new_runs or scratch / "new").absolute()
        if olds == news:
            raise ConfigError(f"--old_runs and --new_runs are both {olds}", wanted="two")
        for config in configs:
            place = config.replace(":", "_")
            if not finished(old, olds / place, flags.set):
                run(old, config, olds / place, flags.set)
            run(new, config, news / place, flags.set)
            found[config] = compare(olds / place, news / place, rules)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, runs both versions, prints the table."""
    flags = _parser().parse_args(argv)
    with OneLine():
        found = measure(flags)
    Console(width=140).print(table(found))
    if any(file.status != SAME for files in found.values() for file in files):
        sys.exit(1)
    print("the same bits")


if __name__ == "__main__":
    main()
