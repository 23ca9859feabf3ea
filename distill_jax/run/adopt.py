"""Takes over the complete stages of another work directory that this config would make again."""

import os
import shutil
from pathlib import Path

from distill_jax.core.files import read_json
from distill_jax.run.config import RunConfig, concerned, upstream
from distill_jax.run.record import FORMAT, recorded_as, setting_values, untrained
from distill_jax.run.run import DONE_FILE, SETTINGS_FILE


def adopt(config: RunConfig, source: Path, target: Path) -> list[str]:
    """Gives a work directory the equal stages and the tokenizer of another, as hard links.

    A stage is equal if its record has this config's settings, the stages that it reads are equal,
    and it has trained the models that this config's start would. Stages that make results are never
    taken over: they do only what is new. A complete stage's files are never written again, so links
    are safe; where links cannot be made the files are copied. Existing files of the target stay,
    but for a tokenizer of other settings that no stage has used.

    Returns:
        Names of the stages that the target now has from the source.
    """
    taken: list[str] = []
    for name in concerned(config):
        mine = target / name
        if config.plan[name].makes == "results" or not _equal(config, name, source):
            continue
        another = mine.exists() and not _same_made(source / name, mine)
        if another or any(other not in taken for _, _, other in upstream(config, name)):
            continue
        _take_tokenizer(source, target)  # before any stage: one is in use where stages are
        if not mine.exists():
            _link_tree(source / name, mine)
        taken.append(name)
    return taken


def _take_tokenizer(source: Path, target: Path) -> None:
    old, new = (read_json(root / "tokenizer" / "made_from.json") for root in (target, source))
    if old not in (None, new) and not any(target.glob(f"*/{SETTINGS_FILE}")):
        shutil.rmtree(target / "tokenizer")
    if not (target / "tokenizer").exists() and (source / "tokenizer").is_dir():
        _link_tree(source / "tokenizer", target / "tokenizer")


def _equal(config: RunConfig, name: str, source: Path) -> bool:
    done = read_json(source / name / DONE_FILE)
    if done is None or done.get("format") != FORMAT or done["kind"] != config.plan[name].kind:
        return False
    if untrained(done, config, name):
        return False
    for setting, _, other in upstream(config, name):
        made = (read_json(source / other / DONE_FILE) or {}).get("made", {})
        for part, value in made.items():
            # Equal settings do not tell that the other stage was redone afterwards.
            if done["inputs"].get(f"{setting} ({part} of {other})", value) != value:
                return False
    own, shared = setting_values(config, name, rounding=False)
    return recorded_as(done, own, shared, config.plan[name]) == (own, shared)


def _same_made(source: Path, target: Path) -> bool:
    found = [read_json(directory / DONE_FILE) for directory in (source, target)]
    return found[1] is not None and found[0]["made"] == found[1]["made"]


def _link_tree(source: Path, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, partial, copy_function=_link)
    partial.rename(target)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target
