"""The files of launch/examples: they parse, and their commands are read by the real parser.

The Slurm file runs whole, on two local processes that a stand-in for srun starts.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stages.small import environment
from tests.test_commands import parsed, place

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "launch" / "examples"
# Prints its arguments, and those of the program that it stands for.
ECHO = """#!{python}
import json, sys
print(json.dumps(sys.argv[1:]))
"""
# Starts what follows its own options once for each task, with the variables that Slurm sets.
SRUN = """#!{python}
import os, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    words.pop(0)
slurm = {{"SLURM_JOB_ID": "{job}", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "{tasks}"}}
tasks = [
    subprocess.Popen(words, env={{**os.environ, **slurm, "SLURM_PROCID": i, "SLURM_LOCALID": i}})
    for i in map(str, range({tasks}))
]
sys.exit(max(task.wait() for task in tasks))
"""
# JAX's port is this plus the job's number, modulo 2**12.
FIRST_PORT = 2**16 - 2**12


def tool(folder: Path, name: str, text: str) -> None:
    """An executable script."""
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


def printed(script: str, folder: Path, **env: str) -> list[list[str]]:
    """The arguments of each `python` and `xpk` that a bash script starts."""
    for name in ("python", "xpk"):
        tool(folder, name, ECHO.format(python=sys.executable))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def jobset() -> dict[str, Any]:
    return dict(yaml.safe_load((EXAMPLES / "jobset.yaml").read_text()))


def of_jobset(folder: Path) -> list[str]:
    template = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = template["containers"]
    assert container["command"] == ["bash", "-c"]
    (words,) = printed(container["args"][0], folder, JOB_COMPLETION_INDEX="1")
    return words


def of_skypilot(folder: Path) -> list[str]:
    task = yaml.safe_load((EXAMPLES / "skypilot.yaml").read_text())
    (folder / "venv" / "bin").mkdir(parents=True)
    (folder / "venv" / "bin" / "activate").touch()
    nodes = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1"}
    (words,) = printed(task["run"], folder, **nodes, SKYPILOT_NUM_NODES=str(task["num_nodes"]))
    assert "--coordinator_address=10.0.0.1:55527" in words
    return words


def of_xpk(folder: Path) -> list[str]:
    script = (EXAMPLES / "xpk.sh").read_text()
    (words,) = printed(script, folder, CLUSTER="c", IMAGE="i")
    (command,) = (w.removeprefix("--command=") for w in words if w.startswith("--command="))
    (within,) = printed(command.replace("/work", str(folder)), folder)
    return within


def of_slurm(folder: Path) -> list[str]:
    tool(folder, "srun", SRUN.format(python=sys.executable, job=1, tasks=1))
    (words,) = printed((EXAMPLES / "slurm.sbatch").read_text(), folder)
    return words


def test_commands_are_read_by_the_real_parser(tmp_path: Path) -> None:
    asked = {}
    for name, made in {
        "jobset": of_jobset, "skypilot": of_skypilot, "xpk": of_xpk, "slurm": of_slurm,
    }.items():  # fmt: skip
        (tmp_path / name).mkdir()
        asked[name] = made(tmp_path / name)
        assert asked[name][:2] == ["-m", "launch.main"]
        several = {"--distributed"} if name in ("xpk", "slurm") else {"--process_id=1"}
        assert several <= set(asked[name])
    root = tmp_path / "root"
    root.mkdir()
    assert parsed(asked, place(root, asked.values())) == {}


@pytest.mark.parametrize("name", ["slurm.sbatch", "xpk.sh"])
def test_bash_reads_it(name: str) -> None:
    assert subprocess.run(["bash", "-n", EXAMPLES / name], check=False).returncode == 0


def test_the_jobset_names_its_own_first_pod_and_as_many_processes_as_pods(tmp_path: Path) -> None:
    config = jobset()
    name, (job,) = config["metadata"]["name"], config["spec"]["replicatedJobs"]
    pods = job["template"]["spec"]
    assert pods["completionMode"] == "Indexed" and pods["completions"] == pods["parallelism"]
    words = of_jobset(tmp_path)
    address = f"--coordinator_address={name}-{job['name']}-0-0.{name}:"
    assert any(word.startswith(address) for word in words)
    assert f"--num_processes={pods['completions']}" in words


def test_every_file_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    files = {path.name for path in EXAMPLES.iterdir()} - {"README.md"}
    assert len(files) == 4 and all(f"| `{name}` |" in listed for name in files)


def free_job() -> int:
    """A job's number whose port is free."""
    for job in range(os.getpid() % 4000, 4096):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", FIRST_PORT + job))
            except OSError:
                continue
            return job
    raise AssertionError("no free port")


def test_the_slurm_file_runs_on_two_local_processes(tmp_path: Path) -> None:
    tool(tmp_path, "srun", SRUN.format(python=sys.executable, job=free_job(), tasks=2))
    (tmp_path / "python").symlink_to(sys.executable)
    env = environment()
    done = subprocess.run(
        ["bash", EXAMPLES / "slurm.sbatch", "--config.stages=('pretrain',)"],
        env={
            **env,
            "PATH": f"{tmp_path}:{env['PATH']}",
            "PYTHONPATH": ":".join(sys.path),
            "CONFIG": "configs/rl.py:smoke",
            "WORKDIR": str(tmp_path / "run"),
        },
        cwd=EXAMPLES.parents[1],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    started = json.loads((tmp_path / "run" / "pretrain" / "run.json").read_text())["starts"]
    assert [start["devices"]["processes"] for start in started] == [2]
    assert started[0]["devices"]["count"] == 2
    assert (tmp_path / "run" / "pretrain" / "done.json").is_file()
    # Process 0 alone writes records: a row of each step, and no step twice.
    lines = (tmp_path / "run" / "pretrain" / "student" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
