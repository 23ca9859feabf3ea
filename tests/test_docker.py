"""The Dockerfile, built from a base that Debian's packages make; its smoke runs as another user.

By hand, as root on Debian 12, in minutes; no hub of images is asked:

    apt-get install buildah mmdebstrap && DOCKER=1 pytest -n 0 -m docker

buildah builds and runs in a chroot, so that no daemon and no namespaces are needed. Nothing here
has a GPU: the variants cuda12 and cuda13 are not built.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("DOCKER" not in os.environ, reason="no DOCKER=1"),
]
IMAGE, USER = "localhost/distill_jax", 1000
# How pip reaches its packages here, for the build alone.
PIP = [Path("/etc/pip.conf"), Path("/etc/xdg/pip"), Path("/usr/local/share/ca-certificates")]


class Store(NamedTuple):
    """buildah's images and containers below a directory."""

    root: Path

    def run(self, *words: object, fails: bool = False) -> str:
        """What `buildah WORDS` prints."""
        where = ["--root", self.root / "store", "--runroot", self.root / "run"]
        command = ["buildah", *where, "--storage-driver", "vfs", *words]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, cwd=ROOT
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said[-4000:]
        return said if fails else done.stdout

    def build(self, *words: str, fails: bool = False) -> str:
        """What a build of the Dockerfile prints."""
        mounts = [word for path in PIP if path.exists() for word in ("-v", f"{path}:{path}:ro")]
        return self.run(
            "build", "--isolation=chroot", "--format=docker", "--layers=false", "--pull-never",
            *mounts, "--build-arg=BASE=localhost/base", *words, "-t", IMAGE, ".", fails=fails,
        )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """With the base image: Debian 12 and nothing else."""
    root = tmp_path_factory.mktemp("docker")
    made = Store(root)
    subprocess.run(
        ["mmdebstrap", "--variant=minbase", "bookworm", root / "base.tar"], check=True, cwd=root
    )
    container = made.run("from", "--pull-never", "scratch").strip()
    made.run("add", container, root / "base.tar", "/")
    made.run("commit", "--rm", container, "localhost/base")
    yield made
    made.run("rm", "--all")
    shutil.rmtree(root)  # gigabytes


@pytest.fixture(scope="module")
def container(store: Store) -> str:
    store.build()
    return store.run("from", "--pull-never", IMAGE).strip()


@pytest.fixture(scope="module")
def folder(store: Store, container: str) -> Path:
    """The checkout inside it, seen from outside: buildah can lose what a short command prints."""
    return Path(store.run("mount", container).strip()) / "home" / "distill" / "distill_jax"


def test_an_unknown_extra_is_refused_first(store: Store) -> None:
    said = store.build("--build-arg=EXTRA=gpu", fails=True)
    assert "EXTRA=gpu; wanted: cpu, cuda12 or cuda13" in said and "apt-get update" not in said


def test_its_user_is_not_root_and_owns_the_checkout(store: Store, folder: Path) -> None:
    user = store.run("inspect", "--type=image", "--format={{.OCIv1.Config.User}}", IMAGE)
    assert user.strip() == "distill"
    assert {path.stat().st_uid for path in (folder, *folder.iterdir())} == {USER}
    names = {path.name for path in folder.iterdir()}
    assert {"launch", "configs", "README.md"} <= names
    assert not names & {".git", ".venv", "build", ".pytest_cache", ".mypy_cache", ".ruff_cache"}
    assert not list((folder / "runs").iterdir())


def test_its_own_command_is_the_smoke_and_passes(
    store: Store, container: str, folder: Path
) -> None:
    listed = store.run("inspect", "--type=image", "--format={{.OCIv1.Config.Cmd}}", IMAGE)
    command = listed.strip().removeprefix("[").removesuffix("]").split()
    assert command[:3] == ["python", "-m", "launch.main"]
    store.run("run", "--isolation=chroot", container, "--", *command)
    report = folder / "runs" / "check" / "report.md"
    assert "student after rl" in report.read_text(encoding="utf-8")
    assert report.stat().st_uid == USER
