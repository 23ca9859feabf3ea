import asyncio
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill_jax.core import disk
from distill_jax.core.errors import CheckpointError, DataError
from distill_jax.core.files import check_local


def raised(make, *causes: BaseException) -> BaseException:
    """The last of a chain of exceptions, each raised from the one before."""
    error = make
    for cause in causes:
        cause.__cause__, error = error, cause
    return error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_found_below_other_errors(tmp_path: Path, number: int):
    path = tmp_path / "metrics.jsonl"
    error = raised(OSError(number, "x", str(path)), ValueError("orbax"), CheckpointError("failed"))
    found = disk.full(error, Path("/"))
    assert found is not None
    said = str(found)
    assert str(path) in said and "MB free" in said and "same command" in said
    assert "\n" not in said


def test_the_directory_is_named_where_the_error_names_none(tmp_path: Path):
    error = raised(ValueError("write: No space left on device [tensorstore]"), RuntimeError("x"))
    found = disk.full(error, tmp_path / "not" / "yet")
    assert found is not None and str(tmp_path / "not" / "yet") in str(found)


def test_an_error_raised_while_another_was_handled_counts():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("close failed")  # noqa: B904  # the context alone names the cause
    except RuntimeError as error:
        assert disk.full(error, Path("/")) is not None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied"),
        ValueError("x"),
        # Another process's message, quoted: which run it was must not be lost.
        DataError("arm a failed: No space left on device"),
    ],
)
def test_other_errors_are_not_a_full_disk(error: BaseException):
    assert disk.full(error, Path("/")) is None


def test_a_circle_of_causes_ends():
    a, b = ValueError("a"), ValueError("b")
    a.__cause__, b.__cause__ = b, a
    assert disk.full(a, Path("/")) is None


@pytest.mark.parametrize("path", ["gs://bucket/run", "s3://b", "hdfs+x://b", Path("gs://b/x")])
def test_object_stores_are_refused(path):
    with pytest.raises(ValueError, match="--workdir=.*object stores.*wanted.*fix"):
        check_local(path, "--workdir")


@pytest.mark.parametrize("path", ["", "runs/a", "/tmp/x:/y", "C:/runs", "a:b", "./gs:/b"])
def test_local_paths_pass(path):
    check_local(path, "--workdir")


def test_callbacks_to_a_closed_loop_are_not_printed():
    loop = asyncio.new_event_loop()
    loop.close()
    passed_on = []
    hook = disk.without_closed_loops(passed_on.append)
    for call in (lambda: loop.call_soon_threadsafe(print), lambda: 1 / 0):
        try:
            call()
        except (RuntimeError, ZeroDivisionError) as error:
            hook(SimpleNamespace(exc_value=error))
    assert [type(x.exc_value) for x in passed_on] == [ZeroDivisionError]
