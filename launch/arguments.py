"""What the commands share: flags checked before they are parsed, errors in one line, `--json`."""

import argparse
import atexit
import gc
import importlib.util
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import absl.logging
import ml_collections
from absl import app, flags

from distill_jax.core import disk, files, settings
from distill_jax.core.errors import EXIT_INTERRUPTED, ConfigError, DataError, DistillError

EXIT_WRONG_INPUT = 2
ROOT = Path(__file__).resolve().parent.parent


class OneLine:
    """While entered, expected failures end the program with one line on standard error.

    These are the project's errors, a full disk, and Ctrl-C; any other exception goes on.

    Attributes:
        directory: where the program writes; set when it is known.
    """

    def __init__(self) -> None:
        self.directory = Path()

    def __enter__(self) -> "OneLine":
        for handler in logging.getLogger().handlers:
            handler.addFilter(disk.WithoutFullDisk())
        sys.unraisablehook = disk.without_closed_loops(sys.unraisablehook)
        return self

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, KeyboardInterrupt):
            print("interrupted; run the same command again to go on", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        full = disk.full(error, self.directory) if error is not None else None
        if full is not None:
            fail(full)
        if isinstance(error, DistillError):
            fail(error)


def run_app(job: Callable[..., None], example: str, *, texts: bool = False) -> None:
    """Runs a command that has absl flags; `example` names a config, for who gave none.

    With `texts` the job is also given the arguments that are no flags; without, there are none.
    """

    def run(argv: list[str]) -> None:
        gc.freeze()
        gc.enable()
        if texts:
            guarded(lambda guard: job(guard, argv[1:]), argv[:1])
        else:
            guarded(job, argv)

    gc.disable()  # the libraries, imported now, stay: a search among them takes a second
    atexit.register(gc.freeze)
    app.run(run, flags_parser=lambda argv: parse(argv, example))


def guarded(job: Callable[[OneLine], None], argv: Sequence[str]) -> None:
    """Calls a job inside `OneLine`; what the flags left of the command line must be empty."""
    if not flags.FLAGS["verbosity"].present:
        absl.logging.set_verbosity(absl.logging.WARNING)  # orbax logs every file it writes
    with OneLine() as guard:
        if len(argv) > 1:
            got = f"stray argument {argv[1]!r}"
            fix = f"--config.{argv[1]}" if "=" in argv[1] else ""
            raise ConfigError(got, wanted="flags alone, e.g. --workdir=DIR", fix=fix)
        job(guard)


def tool_parser(
    name: str,
    doc: str | None,
    epilog: str | None = None,
    kind: type[argparse.ArgumentParser] = argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """The parser of `python -m launch.NAME`, with its module's docstring as description."""
    return kind(
        prog=f"python -m launch.{name}",
        description=doc,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def write_json(path: Path, content: Any) -> None:
    """Writes the file of `--json`, whole or not at all.

    Raises:
        DataError: nothing can be written there.
    """
    try:
        files.write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def parse(argv: Sequence[str], example: str) -> list[str]:
    """Parses the flags; ends the program with one message where they are wrong.

    argv: with the program's name; example: of a config, for who gave none.
    """
    asks_help = any(argument.lstrip("-").startswith("help") for argument in argv[1:])
    argv = with_saved_config(argv)
    try:
        if not asks_help:
            check(argv[1:], example)
        return flags.FLAGS(list(argv))
    except flags.UnrecognizedFlagError as error:
        if "." not in error.flagname:
            fail(error)
        fix = f"--config.{error.flagname}=VALUE"
        fail(ConfigError(f"no flag --{error.flagname}", wanted="settings after config.", fix=fix))
    except (DistillError, flags.Error) as error:
        fail(error)


def with_saved_config(argv: Sequence[str]) -> list[str]:
    """The arguments, with the config of --workdir for one that is missing or is evaluate.py."""
    config = value_of("config", argv)
    path, _, preset = (config or "").partition(":")
    evaluates = Path(path).resolve() == ROOT / "configs" / "evaluate.py"
    workdir = value_of("workdir", argv) or (f"runs/{preset or 'tiny'}" if evaluates else "")
    saved = Path(workdir) / files.CONFIG_FILE
    if not workdir or not saved.is_file() or not (config is None or evaluates):
        return list(argv)
    if config is None:  # first: it defines the flags of its overrides
        return [argv[0], f"--config={ROOT / 'configs' / 'saved.py'}:{saved}", *argv[1:]]
    given = (config, f"--config={config}", f"-config={config}")
    return [a.removesuffix(config) + f"{path}:{saved}" if a in given else a for a in argv]


def value_of(name: str, argv: Sequence[str]) -> str | None:
    """The value of a flag on a command line, `--name=value` or `--name value`; None without it."""
    for position, argument in enumerate(argv):
        word, equals, value = argument.partition("=")
        if argument.startswith("-") and word.lstrip("-") == name:
            return value if equals else "".join(argv[position + 1 : position + 2])
    return None


def fail(error: Exception) -> NoReturn:
    """One line on standard error, and the error's exit code, 2 where it has none."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(getattr(error, "exit_code", EXIT_WRONG_INPUT))


def check(argv: Sequence[str], example: str) -> str:
    """The config as file[:preset], checked with its overrides before the flag parser sees them.

    The parser would bury mistakes in its own traceback. argv: without the program's name.

    Raises:
        ConfigError: no config, no such file, no such preset, an unknown setting.
    """
    config = value_of("config", argv)
    if not config:
        workdir = value_of("workdir", argv)
        got = f"no --config, and no run in {workdir}" if workdir else "no --config"
        raise ConfigError(got, fix=f"e.g. --config={example}, or --workdir of an earlier run")
    _check_configs()
    path, colon, preset = config.partition(":")
    made = _try_config(Path(path), preset if colon else None)
    for argument in argv:
        name = argument.lstrip("-").partition("=")[0].removeprefix("no")
        if argument.startswith("-") and name.startswith("config."):
            settings.check_name(made, name.removeprefix("config."))
    return config


def _check_configs() -> None:
    """Config files import each other as `configs.NAME`: that must not be another project's."""
    found = importlib.util.find_spec("configs")
    places = [] if found is None else [*(found.submodule_search_locations or ())]
    if not places or Path(places[0]).resolve() != ROOT / "configs":
        got = f"the package configs is {places[0] if places else 'missing'}"
        fix = f"start the command in {ROOT}"
        raise ConfigError(got, wanted=str(ROOT / "configs"), fix=fix)


def _try_config(path: Path, preset: str | None) -> ml_collections.ConfigDict:
    if not path.is_file():
        beside = sorted(path.parent.glob("*.py"))
        known = ", ".join(str(p) for p in beside if "def get_config" in p.read_text("utf-8"))
        fix = "" if known else "run it in the repository's root"
        raise ConfigError(f"no config file {path}", wanted=known or "a file of configs/", fix=fix)
    import distill_jax.stages.runner  # noqa: F401 - a config may name any built-in kind

    spec = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"config {path} is not a Python file", wanted="a file of configs/")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"config {path} has no get_config", wanted="def get_config(preset)")
    presets = getattr(module, "PRESETS", None)
    saved = (preset or "").endswith(files.CONFIG_FILE)
    if presets is not None and preset not in (None, *presets) and not saved:
        raise ConfigError(f"preset {preset!r} of {path}", wanted=f"one of {', '.join(presets)}")
    return module.get_config() if preset is None else module.get_config(preset)
