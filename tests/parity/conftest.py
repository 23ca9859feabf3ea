"""These tests compare with torch; without it (the `parity` extra) nothing here is collected."""

import importlib.util

import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items):
    """Mark every test of this folder `parity`."""
    for item in items:
        if "parity" in item.path.parts:
            item.add_marker(pytest.mark.parity)


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread():
    """Torch's thread pool slows down many times when it shares the cores with XLA's."""
    import torch

    torch.set_num_threads(1)
