"""One process confined by itself, as a long-lived worker would; Landlock and identity alone."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill_jax.sandbox import Layers, Sandbox, boot, landlock, probe

ECHO = """
import os, sys
sys.path.insert(0, {folder!r})
import boot
boot.bare_packages("distill_jax.answers.nothing")
from distill_jax.sandbox.confine import Confinement
Confinement(memory_bytes=256 << 20, write_fds=(1,)).apply()
def attempt(act):
    try:
        act()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
import errno
while line := os.read(0, 100):
    os.write(1, line.upper())
    os.write(1, repr([
        attempt(lambda: os.write(2, b"x")),
        attempt(lambda: open("/etc/passwd")),
        os.getuid(),
        any(name in sys.modules for name in ("jax", "distill_jax.sandbox.pool", "subprocess")),
        os.getppid.__name__,
    ]).encode() + b"\\n")
"""


def test_a_worker_confines_itself_and_lives_on() -> None:
    program = ECHO.format(folder=str(Path(boot.__file__).parent))
    worker = subprocess.Popen(
        [sys.executable, "-I", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdin is not None and worker.stdout is not None
    with worker:
        for word in (b"one\n", b"two\n"):
            worker.stdin.write(word)
            worker.stdin.flush()
            assert worker.stdout.readline() == word.upper()
            user = 65534 if probe().layers["identity"][0] else os.getuid()
            said = ["EPERM", "EACCES", user, False, "getppid"]
            assert worker.stdout.readline().decode() == repr(said) + "\n"
        worker.stdin.close()
        assert worker.wait(10) == 0


def test_a_confined_process_does_not_survive_a_forbidden_call() -> None:
    program = ECHO.format(folder=str(Path(boot.__file__).parent)).replace(
        "os.write(1, line.upper())", "os.fork()"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], input=b"x", capture_output=True)
    assert done.returncode == -31, done.stderr


@pytest.mark.parametrize(
    ("version", "size", "files"),
    [(1, 8, 13), (2, 8, 14), (3, 8, 15), (4, 16, 15), (5, 16, 16), (6, 24, 16), (9, 24, 16)],
)
def test_rulesets_have_the_size_that_each_kernel_knows(version: int, size: int, files: int) -> None:
    attributes = landlock.ruleset(version)
    assert len(attributes) == size
    assert int.from_bytes(attributes[:8], "little") == 2**files - 1
    assert all(word == 0b11 for word in (attributes[8:9] + attributes[16:17]))


ONLY_LANDLOCK = Layers(syntax=False, identity=False, limits=False, filter=False)
NOTHING = Layers(syntax=False, identity=False, limits=False, landlock=False, filter=False)
ATTEMPT = """
import errno, os
try:
    {what}
    print('done')
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.skipif(not probe().layers["landlock"][0], reason="this kernel has no Landlock")
@pytest.mark.parametrize(
    ("what", "least_abi"),
    [
        ("open('/etc/passwd')", 1),
        ("os.listdir('/')", 1),
        (
            "os.mkdir('/dev/shm/distill_attempt')\n    os.rmdir('/dev/shm/distill_attempt')",
            1,
        ),
        ("os.kill(os.getppid(), 0)", 6),
    ],
)
def test_landlock_alone(what: str, least_abi: int) -> None:
    version = int(probe().layers["landlock"][1].split()[1].rstrip(":"))
    if version < least_abi:
        pytest.skip(f"Landlock {version} does not know this")
    with Sandbox(layers=NOTHING) as own:
        assert own.run(ATTEMPT.format(what=what)).stdout == "done\n"
    with Sandbox(layers=ONLY_LANDLOCK) as own:
        found = own.run(ATTEMPT.format(what=what)).stdout.strip()
    assert found in {errno.errorcode[n] for n in (errno.EACCES, errno.EPERM)}


@pytest.mark.skipif(not probe().layers["identity"][0], reason="needs root")
def test_identity_alone() -> None:
    show = "import os\nprint(os.getresuid(), os.getresgid(), os.getgroups())"
    with Sandbox(layers=NOTHING) as own:
        assert own.run(show).stdout != "(65534, 65534, 65534) (65534, 65534, 65534) []\n"
    layers = Layers(syntax=False, limits=False, landlock=False, filter=False)
    with Sandbox(layers=layers) as own:
        assert own.run(show).stdout == "(65534, 65534, 65534) (65534, 65534, 65534) []\n"
        assert own.run(ATTEMPT.format(what="open('/proc/1/environ')")).stdout == "EACCES\n"
        assert own.run(ATTEMPT.format(what="os.kill(os.getppid(), 0)")).stdout == "EPERM\n"


def test_limits_alone() -> None:
    layers = Layers(syntax=False, identity=False, landlock=False, filter=False)
    show = """
import resource
names = 'AS STACK NOFILE FSIZE CORE NPROC MEMLOCK MSGQUEUE CPU'.split()
print([resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in names])
"""
    with Sandbox(layers=layers) as own:
        limits = eval(own.run(show).stdout)
    soft = [512 << 20, 8 << 20, 16, 0, 0, 0, 0, 0, 3]
    assert limits == [(value, value) for value in soft]


def test_the_environment_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret of the host, no descriptor but three."""
    monkeypatch.setenv("SECRET", "gold")
    with Sandbox(layers=NOTHING) as own:
        found = own.run(
            "import os\nprint(dict(os.environ), os.getcwd(), os.listdir('/proc/self/fd'))"
        )
    # The fourth is the listing's own, in the place of the program's pipe.
    assert found.stdout.endswith("/ ['0', '1', '2']\n"), found
    assert "gold" not in found.stdout
