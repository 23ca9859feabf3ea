"""Errors say got, wanted, fix; they keep a stdlib parent and survive pickling."""

import pickle

import pytest

from distill_jax.core import errors

PARENTS = {
    errors.ConfigError: ValueError,
    errors.DataError: ValueError,
    errors.TokenizerMismatchError: ValueError,
    errors.CheckpointError: ValueError,
    errors.MeshError: ValueError,
    errors.NonFiniteError: FloatingPointError,
    errors.RewardError: RuntimeError,
    errors.RewardHackingError: RuntimeError,
    errors.BusyError: RuntimeError,
    errors.EndpointError: RuntimeError,
    errors.DiskFullError: RuntimeError,
    errors.MissingExtraError: ImportError,
}


def test_message_has_all_parts_in_order() -> None:
    error = errors.ConfigError("lr=-1", wanted="at least 0", fix="set optimizer.lr")
    assert str(error) == "lr=-1; wanted: at least 0; fix: set optimizer.lr"
    assert str(errors.DataError("row 3")) == "row 3"


@pytest.mark.parametrize(("cls", "parent"), PARENTS.items())
def test_each_class_has_project_and_stdlib_parent(cls: type, parent: type) -> None:
    assert issubclass(cls, errors.DistillError) and issubclass(cls, parent)


@pytest.mark.parametrize("cls", PARENTS)
def test_errors_cross_process_borders_whole(cls: type[errors.DistillError]) -> None:
    error = cls("got", wanted="wanted", fix="fix")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls and str(again) == str(error)
    assert (again.message, again.wanted, again.fix) == ("got", "wanted", "fix")


def test_every_error_of_the_module_is_listed_here() -> None:
    classes = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.DistillError)
    }
    assert classes == {*PARENTS, errors.DistillError}
