"""Exports of a finished run: the model card, what is refused, and that nothing is half written."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml

from distill_jax.core.errors import CheckpointError, ConfigError, DataError
from distill_jax.core.files import read_json, write_json
from distill_jax.data.chat import ChatSettings
from distill_jax.data.tokenizer import check_same_tokenizer, load_tokenizer
from distill_jax.handover import card
from distill_jax.handover import export as exports
from distill_jax.models import gguf_write, hf_io, peft_io
from distill_jax.run.run import Run
from distill_jax.run.workdir import config_of
from launch import export_model, get_model

pytestmark = pytest.mark.slow

MERGED, GGUF = exports.Request(exports.MERGED), exports.Request(exports.GGUF)


def opened(workdir: Path) -> Run:
    return Run(config_of(workdir), workdir)


def front(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def merged(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exports.export(opened(finished), "rl", MERGED, tmp_path_factory.mktemp("o") / "student")


def test_the_card_has_results_settings_and_commit(finished: Path, merged: Path) -> None:
    text, result = (merged / "README.md").read_text(), read_json(finished / "evaluate" / "rl.json")
    assert "This model is *student after rl (start: sft)*" in text
    found = result["greedy"]["accuracy"]
    cell = "{mean:.1f} [{low:.1f}, {high:.1f}]".format(**{k: 100 * v for k, v in found.items()})
    rows = [line for line in text.splitlines() if line.startswith("| student after rl")]
    assert cell in rows[0] and "95% interval" in text
    commit = read_json(finished / "rl" / "run.json")["starts"][0]["git"]["commit"]
    assert commit in text and "- preset: smoke, seed" in text and "- data: embedded" in text
    assert "its LoRA adapter of rank 4 merged" in text
    assert "no other model's licence applies" in text
    found = front(text)
    assert found["library_name"] == "transformers" and "license" not in found
    assert str(finished) not in text and "/tmp" not in text and "launch.main" not in text
    names = {path.name for path in merged.iterdir()}
    assert {"config.json", "generation_config.json", "chat_template.jinja"} <= names
    assert {"model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names


def test_an_earlier_stage_does_not_show_what_came_later(finished: Path, tmp_path: Path) -> None:
    exports.export(opened(finished), "sft", exports.Request(exports.ADAPTER), tmp_path / "sft")
    text = (tmp_path / "sft" / "README.md").read_text()
    assert "This model is *student after sft" in text and "student after rl" not in text
    assert "- rl:" not in text and front(text)["library_name"] == "peft"


def test_results_of_other_weights_are_not_shown(finished: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(finished, tmp_path / "run")
    file = workdir / "evaluate" / "rl.json"
    result = read_json(file)
    result["made_from"]["adapter"] = "0" * 32
    write_json(file, result)
    out = exports.export(opened(workdir), "rl", MERGED, tmp_path / "out")
    text = (out / "README.md").read_text()
    assert "These weights were not evaluated." in text and "95% interval" not in text


def test_a_checkpoint_is_the_model_of_its_step(
    finished: Path, merged: Path, tmp_path: Path
) -> None:
    run = opened(finished)
    exports.export(run, "rl_step_2", MERGED, tmp_path / "last")
    exports.export(run, "rl_step_1", MERGED, tmp_path / "first")
    last, first, whole = (
        hf_io.load_hf(x)[1] for x in (tmp_path / "last", tmp_path / "first", merged)
    )
    kernels = [x["layers"]["self_attn"]["q_proj"]["kernel"] for x in (last, first, whole)]
    np.testing.assert_array_equal(kernels[0], kernels[2])
    assert np.any(np.asarray(kernels[1]) != np.asarray(kernels[2]))
    exports.export(run, "rl_step_1", exports.Request(exports.ADAPTER), tmp_path / "adapter")
    lora, _ = peft_io.load_adapter(tmp_path / "adapter", hf_io.load_config(merged))
    assert "not evaluated" in (tmp_path / "adapter" / "README.md").read_text()
    assert lora.keys() == {"layers"}


def test_an_export_is_a_start_for_another_run(finished: Path, merged: Path) -> None:
    run = opened(finished)
    again, own = run.student(str(merged)), run.load_student("rl")
    assert again.base == merged
    assert hf_io.load_config(merged).num_layers == own.model.config.num_layers


def test_what_cannot_be_exported(finished: Path, tmp_path: Path) -> None:
    run, out = opened(finished), tmp_path / "out"
    adapter = exports.Request(exports.ADAPTER)
    for name, request, error, said in (
        ("teacher", MERGED, ConfigError, "wanted: base, or a stage that makes a student: sft, rl"),
        ("base", adapter, ConfigError, "base has no adapter.*fix: use --merged"),
        ("nowhere", MERGED, CheckpointError, "no directory nowhere"),
        ("rl_step_7", MERGED, CheckpointError, "7"),
    ):
        with pytest.raises(error, match=said):
            exports.export(run, name, request, out)
    assert not list(tmp_path.iterdir())


def test_a_directory_with_something_in_it_is_left_alone(finished: Path, tmp_path: Path) -> None:
    run, out = opened(finished), tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("mine")
    with pytest.raises(DataError, match="is not empty; wanted: a directory that is new or empty"):
        exports.export(run, "rl", MERGED, out)
    with pytest.raises(DataError, match="is a file or a link"):
        exports.export(run, "rl", MERGED, out / "config.json")
    assert (out / "config.json").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    (out / "config.json").unlink()
    exports.export(run, "rl", MERGED, out)  # empty
    assert (out / "model.safetensors").is_file() and len(list(tmp_path.iterdir())) == 1


def test_nothing_is_half_written(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hf_io.files, "write_texts", full)
    with pytest.raises(DataError, match="cannot write .*out: Permission denied"):
        exports.export(opened(finished), "rl", MERGED, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("readme", "wanted"),
    [
        ("---\nlicense: apache-2.0\nbase_model: x/y\n---\n# A model", ("apache-2.0", "README.md")),
        ("# license: mit", ("", "")),
        ("---\nlicense: [\n---\n", ("", "")),
        ("---\nlicense: 3\n---\n", ("", "")),
        ("---\n- license\n---\n", ("", "")),
        (None, ("", "")),
    ],
)
def test_the_licence_is_that_of_the_base(
    tmp_path: Path, readme: str | None, wanted: tuple[str, str]
) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert card.licence(str(tmp_path)) == wanted


def test_a_base_of_ones_own_is_named_by_its_last_part(finished: Path, tmp_path: Path) -> None:
    base = tmp_path / "secret" / "Mine"
    shutil.copytree(finished / "pretrain" / "student" / "model", base)
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    model = card.Exported(
        name="out", subject="rl", weights={}, form="Whole model.", adapter=False, base=str(base),
        chat=ChatSettings("Be brief.", "Answer."), end="<|im_end|>", max_new_tokens=9,
    )  # fmt: skip
    text = card.write(model, finished)
    assert front(text)["license"] == "mit" and "base_model" not in front(text)
    assert "The base model `Mine` is under `mit`" in text and "secret" not in text
    assert '{"role": "system", "content": "Be brief."}' in text
    assert '"content": "QUESTION\\nAnswer."' in text and "max_new_tokens=9" in text


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command would turn the compilation cache on for the tests that follow."""
    monkeypatch.setattr(export_model.main_job, "start_compilation_cache", lambda directory: None)


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        export_model.main(arguments)
    return int(str(stop.value.code)), capsys.readouterr().err


def test_the_command(
    finished: Path, merged: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "student"
    export_model.main([f"--workdir={finished}", f"--merged={out}"])
    assert f"rl: {out}" in capfd.readouterr().err
    for name in ("README.md", "model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (merged / name).read_bytes()


def test_the_command_refuses_in_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = f"--workdir={finished}", f"--merged={tmp_path / 'out'}"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for arguments, said in (
        ([f"--workdir={tmp_path / 'none'}", out], "DataError: no config.json in"),
        ([run, f"--merged={tmp_path / 'full'}"], "DataError: .* is not empty"),
        ([run, out, "--stage=nowhere"], "CheckpointError: no directory nowhere"),
        ([run, "--merged=gs://bucket/x"], "object stores are not supported"),
        ([run, out, "--shard_gb=0"], "ConfigError: --shard_gb=0.0; wanted: above 0"),
    ):
        code, err = called(capsys, *arguments)
        assert code == 2 and len(err.strip().splitlines()) == 1
        assert re.search(said, err), err
    for form in ("merged", "adapter", "gguf"):
        latin = f"--{form}={os.fsdecode(os.fsencode(tmp_path) + bytes([47, 0xE9]))}"
        code, err = called(capsys, run, latin)
        assert code == 2 and "DataError" in err and "wanted: a path in UTF-8" in err
    assert called(capsys, run)[0] == 2  # neither form
    assert called(capsys, run, out, f"--adapter={tmp_path / 'b'}")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
    assert json.loads((finished / "config.json").read_text())["preset"] == "smoke"


# --- a GGUF file ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gguf_model(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What launch.get_model makes of the file that launch.export_model wrote."""
    root = tmp_path_factory.mktemp("gguf")
    out = exports.export(opened(finished), "rl", GGUF, root / "deep" / "student.gguf")
    assert [path.name for path in out.parent.iterdir()] == ["student.gguf"]
    found = get_model.convert(out, root / "model")
    assert found["name"] == "student" and found["licence"] == "not named in the file"
    return root / "model"


def test_a_gguf_file_is_the_merged_model_rounded(merged: Path, gguf_model: Path) -> None:
    (ours, base), (found, again) = hf_io.load_hf(merged), hf_io.load_hf(gguf_model)
    assert dataclasses.replace(ours, initializer_range=0.02) == found
    wanted = jax.tree.map(lambda x: np.asarray(x), base)
    for path, leaf in jax.tree_util.tree_leaves_with_path(again):
        stored = path[-1].key in ("kernel", "embedding")
        whole = functools.reduce(lambda tree, part: tree[part.key], path, wanted)
        rounded = whole.astype(np.float16) if stored else whole
        np.testing.assert_array_equal(np.asarray(leaf), rounded.astype(np.float32), str(path))


def test_its_tokenizer_is_the_merged_models(merged: Path, gguf_model: Path) -> None:
    ours, found = load_tokenizer(merged), load_tokenizer(gguf_model)
    check_same_tokenizer(found, ours)
    chat = [{"role": "user", "content": "What is 12 + 3?"}]
    assert found.apply_chat_template(chat) == ours.apply_chat_template(chat)
    assert found.eos_token == ours.eos_token == "<|im_end|>"


def test_the_licence_of_the_base_is_in_the_file(finished: Path, tmp_path: Path) -> None:
    base = tmp_path / "Mine"
    shutil.copytree(finished / "pretrain" / "student" / "model", base)
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    exports.export(opened(finished), str(base), GGUF, tmp_path / "mine.gguf")
    assert get_model.convert(tmp_path / "mine.gguf", tmp_path / "again")["licence"] == "mit"


def test_a_model_that_no_file_holds_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    windowed = tmp_path / "windowed"
    shutil.copytree(finished / "pretrain" / "student" / "model", windowed)
    config = read_json(windowed / "config.json")
    config |= {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}
    del config["layer_types"]
    write_json(windowed / "config.json", config)
    with pytest.raises(ConfigError, match="sliding_window=8 for a GGUF file.*fix: use --merged"):
        exports.export(opened(finished), str(windowed), GGUF, tmp_path / "new" / "x.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["windowed"]


def test_the_command_writes_a_gguf_file(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "student.gguf"
    export_model.main([f"--workdir={finished}", f"--gguf={out}"])
    assert f"rl: {out}" in capfd.readouterr().err
    before = out.read_bytes()
    code, err = called(capfd, f"--workdir={finished}", f"--gguf={out}")
    assert code == 2 and "DataError: there is something at" in err and "name another" in err
    (tmp_path / "link.gguf").symlink_to(tmp_path / "nowhere")
    assert called(capfd, f"--workdir={finished}", f"--gguf={tmp_path / 'link.gguf'}")[0] == 2
    assert called(capfd, f"--workdir={finished}", "--gguf=s3://bucket/x.gguf")[0] == 2
    assert out.read_bytes() == before
    monkeypatch.setitem(sys.modules, "gguf", None)
    code, err = called(capfd, f"--workdir={finished}", f"--gguf={tmp_path / 'b.gguf'}")
    assert code == 2 and "fix: pip install -e '.[gguf]'" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.gguf", "student.gguf"]


def test_a_full_disk_says_so(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = gguf_write.whole

    @contextlib.contextmanager
    def on_a_full_disk(path: Path) -> Iterator[Path]:
        with whole(path) as partial:
            partial.symlink_to("/dev/full")
            yield partial

    monkeypatch.setattr(gguf_write, "whole", on_a_full_disk)
    code, err = called(capfd, f"--workdir={finished}", f"--gguf={tmp_path / 'x.gguf'}")
    assert code == 1 and "DiskFullError" in err and not list(tmp_path.iterdir())
