"""Every command in README.md, in docs/ and in the READMEs of folders is read by its real parser.

A command is parsed as its program parses it: flags, config file, preset, overrides, and settings
that nothing reads with the others. It ends before any work. Commands without --config need a work
directory that knows its config: `MADE` says which command of the documents makes each.
"""

import importlib.util
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest

from distill_jax.core.files import CONFIG_FILE, write_json
from distill_jax.run.config import build, to_dict
from tests.documents import ROOT, Command, commands, documents, spans, tables
from tests.launch import batch
from tests.stages.small import environment

pytestmark = pytest.mark.slow

# Parses what follows `-c PROGRAM`, as `python -m MODULE ...` would, and ends before the work.
PARSE = """
import argparse, runpy, sys
from pathlib import Path
from launch import arguments

def guarded(job, argv):
    from absl import flags
    from ml_collections import config_flags
    from distill_jax.core.errors import ConfigError
    from distill_jax.run.config import build
    from distill_jax.run.given import refuse_ignored
    with arguments.OneLine():
        if len(argv) > 1:
            raise ConfigError(f"stray argument {argv[1]!r}")
        if module != "launch.bench" and "config" in flags.FLAGS:
            config = build(flags.FLAGS["config"].value)
            given = set(config_flags.get_override_values(flags.FLAGS["config"]))
            refuse_ignored(config, Path("none"), given)
    sys.exit(0)

def parse_args(self, *args, **options):
    parse(self, *args, **options)
    sys.exit(0)

_, _, module, *_ = sys.argv
sys.argv = sys.argv[2:]
arguments.guarded = guarded
parse, argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_args, parse_args
runpy.run_module(module, run_name="__main__", alter_sys=True)
sys.exit("it neither parsed arguments nor read flags")
"""
# Work directory -> file and preset of the command that makes it.
MADE = {
    "runs/tiny": ("rl", "tiny"), "runs/smoke": ("rl", "smoke"), "runs/check": ("rl", "smoke"),
    "runs/reason": ("reason", "tiny"),
}  # fmt: skip
FOLDERS = "tests|configs|launch|distill_jax|docs"
# Steps of the ladder of docs/install.md that take seconds, and what the page says that they print.
CHEAP = {1: "[CpuDevice(id=0)]", 2: "due", 5: "filter    yes  seccomp on x86_64", 7: "peak"}
# Words that stand for a value.
MEANT = {"PRESET": "tiny", "N": "2"}


def found() -> dict[tuple[str, ...], str]:
    """Words -> the first place of each command that has arguments."""
    out: dict[tuple[str, ...], str] = {}
    for path in documents():
        for command in commands(path):
            if len(command.words) > 2:
                out.setdefault(command.words, command.place)
    return out


def meant(words: tuple[str, ...]) -> list[str]:
    """The words with values in the place of names of values."""
    pattern = re.compile(rf"(?<=[:=])({'|'.join(MEANT)})$")
    return [pattern.sub(lambda hit: MEANT[hit[0]], word) for word in words]


def place(root: Path, asked: Iterable[list[str]]) -> Path:
    """Like the repository's root after the runs that documents begin with, with the files asked."""
    for name in re.findall(
        r"(?<==)\w+\.jsonl", " ".join(word for words in asked for word in words)
    ):
        (root / name).touch()
    (root / "configs").symlink_to(ROOT / "configs")
    (root / "tests").symlink_to(ROOT / "tests")
    for workdir, (name, preset) in MADE.items():
        spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (root / workdir).mkdir(parents=True)
        config = to_dict(build(module.get_config(preset)))
        write_json(root / workdir / CONFIG_FILE, config)
    return root


def parsed(asked: dict[str, list[str]], root: Path) -> dict[str, str]:
    """What is wrong with each command that its program refuses, by name."""
    programs = {name: ["-c", PARSE, *words] for name, words in asked.items()}
    done = batch.run(programs, environment(), cwd=root)
    return {
        name: (one.stderr.strip() or "no message").splitlines()[-1]
        for name, one in done.items()
        if one.code
    }


def test_every_command_of_the_documents_parses(tmp_path: Path) -> None:
    asked = {f"{where} {' '.join(w)}": meant(w) for w, where in found().items()}
    assert len(asked) > 70
    assert parsed(asked, place(tmp_path, asked.values())) == {}


def test_what_must_be_refused(tmp_path: Path) -> None:
    config = "--config=configs/rl.py"
    asked = {
        "flag": ["-m", "launch.main", config, "--wrokdir=x"],
        "setting": ["-m", "launch.main", config, "--config.rl.stpes=3"],
        "value": ["-m", "launch.main", config, "--config.rl.steps=many"],
        "preset": ["-m", "launch.main", f"{config}:huge"],
        "limits": ["-m", "launch.main", config, "--config.rl.steps=-1"],
        "together": ["-m", "launch.main", config, "--config.rl.ppo.lam=.9"],
        "ignored": ["-m", "launch.main", config, "--config.rl.cache.megabytes=9"],
        "directory": ["-m", "launch.main", "--workdir=runs/nowhere"],
        "tool": ["-m", "launch.diagnose", "runs/tiny", "--jsno=x"],
        "no parser": ["-m", "launch.arguments", "x"],
    }
    assert set(parsed(asked, place(tmp_path, asked.values()))) == set(asked)


def test_cheap_steps_of_the_install_ladder_print_what_the_page_says(tmp_path: Path) -> None:
    ladder = next(t for t in tables(ROOT / "docs" / "install.md") if "last line" in t[0])
    rows = {int(row["step"].partition(".")[0]): row for row in ladder}
    assert list(rows) == list(range(1, len(rows) + 1))
    asked = {}
    for number, ending in CHEAP.items():
        (command,) = spans(rows[number]["command"])
        assert ending in rows[number]["last line"]
        asked[str(number)] = shlex.split(command)[1:]
    done = batch.run(asked, environment(), cwd=place(tmp_path, []))
    for number, ending in CHEAP.items():
        one = done[str(number)]
        assert one.code == 0 and ending in one.stdout + one.stderr, (number, one.stderr)
    assert done["1"].stdout.endswith(f"{CHEAP[1]}\n")
    assert done["5"].stdout.endswith(f"{CHEAP[5]}\n")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_programs_and_files_that_are_named_exist(path: Path) -> None:
    for command in commands(path):
        module = command.words[1]
        if not module.removeprefix("launch.").isupper():
            assert importlib.util.find_spec(module), command
    text = path.read_text(encoding="utf-8")
    for name in re.findall(rf"(?<![\w./])((?:{FOLDERS})/[\w./-]+\.\w+)", text):
        assert (ROOT / name).exists() or (path.parent / name).exists(), name


def test_extras_that_are_installed_exist() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for path in documents():
        for extras in re.findall(r"pip install [^`\n]*'\.\[([\w,-]+)\]'", path.read_text("utf-8")):
            for extra in extras.split(","):
                assert f'"{extra}"' in setup, f"{path.name}: {extra}"


def test_commands_are_found_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.documents.ROOT", tmp_path)
    file = tmp_path / "a.md"
    file.write_text(
        "Run `python -m launch.a --x=1` or\n\n    python -m launch.b \\\n        --y='1 2'  # why\n"
        "    PRESET=x python -m launch.c > out\n\n"
        "```\npython -m launch.d && python -m launch.e\n```\n"
        "    .../bin/python -m launch.f\n"
    )
    words = {command.words[1:] for command in commands(file)}
    assert words == {
        ("launch.a", "--x=1"), ("launch.b", "--y=1 2"), ("launch.c",), ("launch.d",),
    }  # fmt: skip
    assert Command("a.md:3", ("-m", "launch.b", "--y=1 2")) in list(commands(file))
