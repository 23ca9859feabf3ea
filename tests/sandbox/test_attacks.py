"""No hostile program has an effect, whatever layer below the syntax is looked at.

Each pass is a process of its own (`attacks/campaign.py`): it may be hit without harm to pytest.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

import pytest

from distill_jax.sandbox import landlock
from tests.profile import NIGHTLY, nightly
from tests.sandbox.attacks import ATTACKS
from tests.sandbox.processes import run_alone

PASS_S = 280

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, seccomp"),
]


def campaign(folder: Path, *arguments: str) -> dict:
    """Runs one pass and returns its report.

    Raises:
        AssertionError: the pass itself was ended, which an attack may have done.
    """
    report = folder / "report.json"
    run_alone("tests.sandbox.attacks.campaign", str(report), *arguments, timeout=PASS_S)
    told = json.loads(report.read_text())
    print({name: value for name, value in told.items() if name != "findings"})
    return told


def test_there_are_enough_programs_and_each_has_a_name() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 130
    assert len({attack.source for attack in ATTACKS}) == len(ATTACKS)
    assert sum(attack.works_bare for attack in ATTACKS) >= 40


# Every third program by day, which takes some of each family; all of them at night.
CHOSEN = [] if NIGHTLY else ["--only", *(attack.name for attack in ATTACKS[::3])]
FULL = len(ATTACKS) if NIGHTLY else len(ATTACKS) // 3


# A container has a filter of its own, or no namespaces, or no IPv4: the rest must work anywhere.
A_CONTAINER_MAY_FORBID = (
    *("privilege-", "name-", "other-", "memory-maps", "code-", "net-", "raw-", "native-ptrace"),
    *("native-user", "native-personality", "native-chroot", "signal-pidfd", "write-unnamed"),
)


def test_attacks_work_without_the_sandbox(tmp_path: Path) -> None:
    told = campaign(tmp_path, "--bare", *CHOSEN)
    failed = [line.split(":")[0] for line in told["findings"]]
    assert [name for name in failed if not name.startswith(A_CONTAINER_MAY_FORBID)] == []
    assert told["count"] - len(failed) >= (130 if NIGHTLY else 45)


@pytest.mark.parametrize(
    ("without", "rights"),
    [
        pytest.param([], "as root", id="all layers, as root", marks=nightly),
        pytest.param([], "unprivileged", id="all layers, unprivileged", marks=nightly),
        # By day the kernel's layers alone; test_policy.py tests the syntax layer.
        pytest.param(["syntax"], "unchanged", id="no syntax layer, unchanged rights"),
        pytest.param(["syntax"], "unprivileged", id="no syntax layer, unprivileged", marks=nightly),
    ],
)
def test_no_attack_has_an_effect(tmp_path: Path, without: list[str], rights: str) -> None:
    if rights == "as root" and os.geteuid() != 0:
        pytest.skip("these tests run unprivileged")
    arguments = [*CHOSEN, "--without", *without] + ["--unprivileged"] * (rights == "unprivileged")
    told = campaign(tmp_path, *arguments)
    assert told["findings"] == []
    assert told["count"] >= FULL


# What the remaining layers hold alone, whoever runs the tests. Not listed is what only the filter
# stops: UDP, sockets with a path, SysV memory, namespaces, metadata of files, machine code.
WITHOUT_FILTER = (
    "walk frame format match graph eval exec fork signal sympy-reads sympy-lambdify memory "
    "forge read-open read-os read-mmap read-symlink read-hard-link read-proc read-environment "
    "read-passwd write-open write-mkdir write-symlink write-hard-link write-rename "
    "write-truncate write-unlink raw-tcp-any raw-unix-abstract net name-shm-posix "
    "name-shm-python other-memory native-mkdir native-open native-symlink native-unlink "
    "native-exec native-system native-kill native-shm"
).split()
KERNEL_FAMILIES = (
    "read write exec fork signal raw net other name privilege memory code native".split()
)


@nightly
def test_landlock_identity_and_limits_hold_much_without_the_filter(tmp_path: Path) -> None:
    version = landlock.abi(ctypes.CDLL(None, use_errno=True))
    if version < 6:
        pytest.skip(f"Landlock ABI {version}: signals and abstract sockets are held from 6 on")
    told = campaign(tmp_path, "--without", "syntax", "filter", "--only", *WITHOUT_FILTER)
    assert told["findings"] == []
    assert told["count"] >= 100


@nightly
@pytest.mark.parametrize("layer", ["identity", "limits", "landlock"])
def test_the_filter_holds_without_another_layer(tmp_path: Path, layer: str) -> None:
    told = campaign(tmp_path, "--without", "syntax", layer, "--only", *KERNEL_FAMILIES)
    assert told["findings"] == []
    assert told["count"] >= 150


@nightly
def test_the_watch_sees_what_only_the_filter_stops(tmp_path: Path) -> None:
    """Effects inside the sandbox are seen too: without the filter these get through."""
    names = ["raw-udp", "raw-unix-path", "name-shm-sysv", "name-inotify", "name-memfd"]
    told = campaign(tmp_path, "--without", "syntax", "filter", "--only", *names)
    seen = {line.split(":")[0] for line in told["findings"]}
    assert seen >= set(names)
