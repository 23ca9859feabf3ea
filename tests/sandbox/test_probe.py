"""What the machine can hold is said; a sandbox that does not hold runs nothing."""

import os
import sys
from pathlib import Path

import pytest

from distill_jax.sandbox import Layers, Limits, Sandbox, SandboxError, canaries, probe, process
from distill_jax.sandbox.canaries import Canary
from distill_jax.sandbox.limits import Result
from tests.sandbox.processes import zygotes

BROKEN_BOOT = """
import sys
sys.path.insert(0, {folder!r})
import boot
boot.bare_packages("distill_jax.sandbox.zygote")
from distill_jax.sandbox import {module}
{breakage}
from distill_jax.sandbox import zygote
zygote.main(sys.argv[2:])
"""
LET_KILL_PASS = """
filter.ALLOWED += ['kill']
filter.X86_64.numbers['kill'] = 62
filter.AARCH64.numbers['kill'] = 129
"""


def test_this_machine_is_full() -> None:
    """The tests of this folder need a machine that can hold programs."""
    found = probe()
    assert found.level == "full", found.table()
    assert found.layers["filter"][0] and found.layers["limits"][0]
    assert "level: full" in found.table() and len(found.table().splitlines()) == 6


def pretend_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")


def test_macos_is_partial_and_refused_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_macos(monkeypatch)
    found = probe()
    assert found.level == "partial"
    works = {name for name, (there, _) in found.layers.items() if there}
    assert {"syntax", "limits"} <= works and not {"filter", "landlock"} & works
    with pytest.raises(SandboxError, match="only in part.*darwin.*allow_partial=True"):
        Sandbox()


def test_partial_runs_programs_when_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The zygote pretends too: no Linux call of its own, no pidfd."""
    breakage = "import os\nsys.platform = 'darwin'\ndel os.pidfd_open"
    use_boot(monkeypatch, tmp_path, "policy", breakage)
    pretend_macos(monkeypatch)
    with Sandbox(allow_partial=True, limits=Limits(cpu_s=0.5)) as own:
        assert own.run("print(1)").stdout == "1\n"
        assert own.run("1/0").status == "error"
        assert own.run("import os").status == "rejected"
        assert own.run("print('x' * 10**6)").status == "output"
        assert own.run("while True: pass").status == "timeout"


def test_no_fork_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    assert probe().level == "none"
    with pytest.raises(SandboxError, match="none"):
        Sandbox(allow_partial=True)


def test_an_unknown_processor_is_partial(monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.uname()
    other = os.uname_result((*tuple(found)[:4], "riscv64"))
    monkeypatch.setattr(os, "uname", lambda: other)
    assert probe().level == "partial"
    with pytest.raises(SandboxError, match="riscv64"):
        Sandbox()


def use_boot(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, breakage: str) -> None:
    """Starts zygotes with `breakage` done to `module` first."""
    path = folder / "broken_boot.py"
    where = str(Path(process.BOOT).parent)
    path.write_text(BROKEN_BOOT.format(folder=where, module=module, breakage=breakage))
    monkeypatch.setattr(process, "BOOT", str(path))


@pytest.mark.parametrize(
    ("module", "breakage", "message"),
    [
        (
            "confine",
            "confine.Confinement._prctl = lambda *_: None",
            "canary 'open a file' ended with",
        ),
        (
            "filter",
            "filter.NO_ACCESS = [n for n in filter.NO_ACCESS if n[:4] != 'open']\n"
            "filter.ALLOWED += ['open', 'openat']",
            "canary 'open a file' ended with",
        ),
        ("filter", LET_KILL_PASS, "canary 'signal a process'"),
        ("filter", "filter.KILL = 0x7FFF0000", "canary 'fork'"),
        ("confine", "confine.Confinement._set_limits = lambda *_: None", "canary 'allocate all"),
        (
            "confine",
            "def fail(*_): raise OSError('no')\nconfine.Confinement.apply = fail",
            "canary 'arithmetic and print' ended with error",
        ),
        (
            "confine",
            "def fail(*_, **__): raise OSError('broken seccomp')\n"
            "confine.Confinement.__init__ = fail",
            "the zygote cannot work: OSError: broken seccomp",
        ),
        ("policy", "sys.exit(3)", "lost at its start: it ended"),
    ],
)
def test_a_broken_sandbox_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, breakage: str, message: str
) -> None:
    # Where nobody's files are closed by Landlock, and its own user, too: only the filter is asked.
    layers = Layers(landlock=False, identity=False)
    use_boot(monkeypatch, tmp_path, module, breakage)
    before = zygotes()
    with pytest.raises(SandboxError, match=message):
        Sandbox(layers=layers)
    assert zygotes() == before


def test_a_zygote_broken_later_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The sympy zygote starts at its first program, and is tried first."""
    with Sandbox() as own:
        # Without sympy itself: no canary needs it.
        light = "from distill_jax.sandbox import preload\npreload.everything = lambda **_: None\n"
        use_boot(monkeypatch, tmp_path, "filter", light + LET_KILL_PASS)
        with pytest.raises(SandboxError, match="canary 'signal a process'"):
            own.run("import sympy\nprint('ran')")
        assert own.run("print(1)").stdout == "1\n"


def test_every_canary_is_caught_when_it_ends_otherwise() -> None:
    limits = Limits()
    known = canaries.canaries(limits)

    def run_all_but(broken: Canary):  # type: ignore[no-untyped-def]
        def run(program: str) -> Result:
            (canary,) = (c for c in known if c.program == program)
            stdout = canary.stdout if canary is not broken else "escaped\n"
            status = "ok" if canary is broken else canary.status
            return Result(status, stdout, "", 1.0, 0.0, 0, 0)  # type: ignore[arg-type]

        return run

    for canary in known:
        with pytest.raises(SandboxError, match=f"canary '{canary.name}'"):
            canaries.check(run_all_but(canary), limits, Layers())
