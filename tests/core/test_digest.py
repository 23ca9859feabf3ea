"""Digests: equal for equal contents, different for any other; files are read once."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from distill_jax.core import digest


def test_a_digest_is_that_of_the_parts_joined() -> None:
    want = hashlib.blake2b("aßb".encode(), digest_size=16).hexdigest()
    assert digest.of("aß", b"b") == digest.of_all(iter(["a", "ßb"])) == want
    assert len(want) == 32 and digest.of("aß") != want


def model(directory: Path, weights: bytes = b"weights", **others: str) -> Path:
    directory.mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(weights)
    for name, text in {"config": "{}", **others}.items():
        (directory / f"{name}.json").write_text(text)
    return directory


def of_model(directory: Path) -> str:
    return digest.Remembered(None).of_model(directory)


def test_equal_files_at_another_place_have_one_digest(tmp_path: Path) -> None:
    assert of_model(model(tmp_path / "a")) == of_model(model(tmp_path / "b"))


def test_any_change_of_a_model_shows(tmp_path: Path) -> None:
    changes: list[dict] = [
        {},
        {"weights": b"weightz"},
        {"weights": b"weights "},
        {"config": "[]"},
        {"adapter_config": "{}"},
    ]
    places = [model(tmp_path / str(number), **change) for number, change in enumerate(changes)]
    # Weights of another name, an empty file more, and the same bytes cut otherwise.
    for number, parts in enumerate(({"n": b"weights"}, {"model": b"weights", "n": b""},
                                    {"model": b"wei", "n": b"ghts"})):  # fmt: skip
        place = model(tmp_path / f"cut{number}")
        (place / "model.safetensors").unlink()
        for name, content in parts.items():
            (place / f"{name}.safetensors").write_bytes(content)
        places.append(place)
    assert len({*map(of_model, places)}) == len(places) == 8


def test_every_byte_of_a_large_file_counts(tmp_path: Path) -> None:
    size = 3 * 2**20
    whole = bytearray(size)
    found = set()
    # At both ends and on each side of what may be borders of blocks.
    for at in (0, 1, 2**18 - 1, 2**18, 2**20 - 1, 2**20, 2**21, size - 2, size - 1):
        whole[at] = 1
        (tmp_path / "file").write_bytes(whole)
        found.add(digest.of_files([tmp_path / "file"]))
        whole[at] = 0
    assert len(found) == 9


def test_names_and_order_of_files_count(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.write_bytes(b"same")
    assert digest.of_files([one]) != digest.of_files([two])
    assert digest.of_files([one, two]) != digest.of_files([two, one])


def test_what_is_no_part_of_a_model_does_not_count(tmp_path: Path) -> None:
    plain = of_model(model(tmp_path / "a"))
    assert of_model(model(tmp_path / "b", generation_config="{}", tokenizer="{}")) == plain
    files = [path.name for path in digest.model_files(tmp_path / "b")]
    assert files == ["config.json", "model.safetensors"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the files of each reading."""
    seen: list[list[str]] = []
    real = digest.of_files

    def watched(paths: list[Path]) -> str:
        seen.append([path.name for path in paths])
        return real(paths)

    monkeypatch.setattr(digest, "of_files", watched)
    return seen


def test_a_model_is_read_once_while_its_files_stay(tmp_path: Path, reads: list) -> None:
    place, file = model(tmp_path / "model"), tmp_path / "digests.json"
    known = digest.Remembered(file)
    first = known.of_model(place)
    assert known.of_model(place) == digest.Remembered(file).of_model(place) == first
    assert len(reads) == 1
    # Another file of the same size, at another time.
    weights = place / "model.safetensors"
    weights.write_bytes(b"weightz")
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    second = digest.Remembered(file).of_model(place)
    assert second != first and len(reads) == 2
    assert digest.Remembered(file).of_model(place) == second and len(reads) == 2


@pytest.mark.parametrize("content", [b"weightz", b"more weights"])
@pytest.mark.parametrize("later", [0, 1])
def test_a_file_is_read_again_when_its_size_or_time_changed(
    tmp_path: Path, reads: list, content: bytes, later: int
) -> None:
    place = model(tmp_path / "model")
    known, weights = digest.Remembered(None), place / "model.safetensors"
    first, before = known.of_model(place), weights.stat()
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + later))
    changed = len(content) != before.st_size or later != 0
    assert (known.of_model(place) != first) == changed and len(reads) == 1 + changed


def test_a_new_file_of_a_model_is_noticed(tmp_path: Path, reads: list) -> None:
    place = model(tmp_path / "model")
    known = digest.Remembered(None)
    first = known.of_model(place)
    (place / "model-2.safetensors").write_bytes(b"more")
    assert known.of_model(place) != first and len(reads) == 2


def test_two_models_are_remembered_apart(tmp_path: Path, reads: list) -> None:
    one, two = model(tmp_path / "a"), model(tmp_path / "b", b"others")
    known = digest.Remembered(tmp_path / "digests.json")
    assert known.of_model(one) != known.of_model(two)
    again = digest.Remembered(tmp_path / "digests.json")
    assert (again.of_model(one), again.of_model(two)) == (known.of_model(one), known.of_model(two))
    assert len(reads) == 2


def test_an_adapter_keeps_its_digest_where_its_base_moves(tmp_path: Path):
    found = []
    for name, changes in (
        ("a", {}),
        ("b", {"base_model_name_or_path": "b/model"}),
        ("c", {"r": 2}),
    ):
        (tmp_path / name).mkdir()
        settings = {"r": 1, "base_model_name_or_path": "a/model", **changes}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(settings))
        found.append(digest.Remembered(None).of_model(tmp_path / name))
    assert found[0] == found[1] != found[2]
