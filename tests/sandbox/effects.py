"""Bait for hostile programs, and a look afterwards at what they touched.

Everything here watches side effects: files, connections, processes, memory of other processes,
names in the kernel, tokens in the output. What a program says of itself is not read.
"""

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.sandbox.attacks import proc_table

VICTIM_CODE = """
import ctypes, os, signal, sys, time
signal.signal(signal.SIGURG, lambda *_: os._exit(1))
hidden = ctypes.create_string_buffer(os.environ["GOLD"].encode())
print(ctypes.addressof(hidden), flush=True)
while True:
    time.sleep(1000)
"""
# SIGCHLD is the host's own; every other signal that can be caught must not arrive.
CAUGHT = (
    "HUP INT QUIT USR1 USR2 URG IO WINCH ALRM VTALRM PROF CONT TERM TSTP TTIN TTOU PIPE".split()
)
PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", "/dev/mqueue", "/", ".")
PR_SET_CHILD_SUBREAPER = 36


class Watch:
    """Lays out the bait; `effects` names what was touched since the last call and clears it up.

    The process that makes a Watch adopts every orphan below it (prctl), so a program that
    detaches itself shows as a new descendant, whatever else runs on the machine.
    """

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.now = "won" + secrets.token_hex(16)
        self.secret = "secret" + secrets.token_hex(16)
        # GOLD- and 32 digits: programs look for the pattern, as they cannot know the digits.
        self.gold = os.environ.setdefault("GOLD", "GOLD-" + secrets.token_hex(16))
        self.mark = "mark" + secrets.token_hex(6)
        self.key = secrets.randbelow(2**30) + 2**30
        self.signals: list[str] = []
        self._files()
        self._listeners()
        self._host()
        self._start_victim()
        self.known = self._children()
        self.host_before = self._host_state()

    def _files(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="distill-watch-"))
        self.root.chmod(0o755)
        self.canary = self.root / "canary"
        self.canary.mkdir()
        self.canary.chmod(0o777)
        self.secret_path, self.target_path = self.root / "secret", self.root / "target"
        self.secret_path.write_text(self.secret)
        self.secret_path.chmod(0o644)
        self.target_path.write_text("untouched")
        self.target_path.chmod(0o666)
        self.files_before = self._file_state()

    def _file_state(self) -> list[tuple[int, ...] | str | None]:
        def state(path: Path) -> tuple[int, ...] | None:
            try:
                s = path.stat()
            except FileNotFoundError:
                return None
            return (s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_size, s.st_mtime_ns)

        try:
            attributes = str(os.listxattr(self.target_path))
            text = self.target_path.read_text()
        except OSError as gone:
            attributes, text = "", str(gone)
        return [state(self.secret_path), state(self.target_path), text, attributes]

    def _listeners(self) -> None:
        self.abstract, self.unix_path = self.mark + "abstract", str(self.root / "socket")
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.hidden_unix = socket.socket(socket.AF_UNIX)
        self.hidden_unix.bind("\0" + self.abstract)
        self.path_unix = socket.socket(socket.AF_UNIX)
        self.path_unix.bind(self.unix_path)
        os.chmod(self.unix_path, 0o777)
        for server in (self.hidden_unix, self.path_unix):
            server.listen(50)
        self.sockets = [self.tcp, self.udp, self.hidden_unix, self.path_unix]
        # Two descriptors that a careless start would hand down: a pipe and the open secret.
        self.pipe_out, self.pipe_in = os.pipe()
        self.open_secret = os.open(self.secret_path, os.O_RDONLY)
        for descriptor in (self.pipe_in, self.open_secret):
            os.set_inheritable(descriptor, True)
        os.set_blocking(self.pipe_out, False)
        for listener in self.sockets:
            listener.setblocking(False)

    def _host(self) -> None:
        self.old_handlers = {}
        for name in CAUGHT:
            number = signal.Signals[f"SIG{name}"]
            self.old_handlers[number] = signal.signal(
                number, lambda got, frame: self.signals.append(signal.Signals(got).name)
            )

    def _host_state(self) -> dict[str, object]:
        state = proc_table.traits(os.getpid())
        # Its own threads, timers and mappings change all the time; what others could set must not.
        return {name: value for name, value in state.items() if name != "state"}

    def _start_victim(self) -> None:
        self.victim = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", VICTIM_CODE],
            stdout=subprocess.PIPE,
            env={"GOLD": self.gold},
        )
        assert self.victim.stdout is not None
        self.victim_address = int(self.victim.stdout.readline())
        deadline = time.monotonic() + 5
        while (
            proc_table.traits(self.victim.pid).get("state") != "S" and time.monotonic() < deadline
        ):
            time.sleep(0.005)
        self.victim_before = self._victim_state()

    def _victim_state(self) -> dict[str, object]:
        state = proc_table.traits(self.victim.pid)
        with open(f"/proc/{self.victim.pid}/mem", "rb") as memory:
            memory.seek(self.victim_address)
            return state | {"memory": memory.read(len(self.gold))}

    def fill(self, source: str) -> str:
        """The program with every placeholder replaced."""
        values = {
            "CANARY": self.canary,
            "SECRET": self.secret_path,
            "TARGET": self.target_path,
            "NOW": self.now[::-1],  # backwards: a traceback that quotes the line shows nothing
            "TCP": self.tcp.getsockname()[1],
            "UDP": self.udp.getsockname()[1],
            "ABSTRACT": self.abstract,
            "UNIX": self.unix_path,
            "HOST": os.getpid(),
            "VICTIM": self.victim.pid,
            "VADDR": self.victim_address,
            "MARK": self.mark,
            "KEY": self.key,
        }
        for name, value in values.items():
            source = source.replace(f"@{name}@", str(value))
        return source

    def settle(self) -> None:
        """What runs and what is set now is not the programs' doing: call before the first."""
        self.known = self._children()
        self.host_before = self._host_state()
        self.signals.clear()

    def effects(self, outputs: Iterable[str]) -> list[str]:
        """What was touched since the last call, one short sentence each; all is put back."""
        found = self._left_over()
        for text in outputs:
            for name in ("now", "secret", "gold"):
                if getattr(self, name) in text:
                    found.append(f"the {name} token is in the output")
        return found + self._touched_files() + self._heard() + self._others() + self._kernel_names()

    def _children(self) -> dict[int, str]:
        return proc_table.descendants(os.getpid(), besides=self.victim.pid)

    def _left_over(self) -> list[str]:
        def strangers() -> dict[int, str]:
            return {p: line for p, line in self._children().items() if p not in self.known}

        deadline = time.monotonic() + 1.5  # a killed process needs a moment to go
        while (found := strangers()) and time.monotonic() < deadline:
            proc_table.reap(found)
            time.sleep(0.02)
        gone = set(self.known) - set(self._children())
        for pid in found:
            proc_table.kill(pid)
        proc_table.reap(found, wait=True)
        self.known = {pid: line for pid, line in self.known.items() if pid not in gone}
        new = [f"process {pid} was left behind: {line}" for pid, line in found.items()]
        return new + [f"process {pid} of the sandbox is gone" for pid in gone]

    def _touched_files(self) -> list[str]:
        found = []
        for path in self.canary.iterdir():
            found.append(f"{path.name} appeared in the canary folder")
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if self._file_state() != self.files_before:
            found.append(f"secret or target changed: {self._file_state()[2]}")
            shutil.rmtree(self.root / "socket", ignore_errors=True)
            self.target_path.unlink(missing_ok=True)
            self.target_path.write_text("untouched")
            self.target_path.chmod(0o666)
            self.files_before = self._file_state()
        for place in PLACES:
            for path in Path(place).glob(f"*{self.mark}*"):
                found.append(f"{path} appeared")
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return found

    def _heard(self) -> list[str]:
        found = []
        for listener in self.sockets:
            while True:
                try:
                    data = listener.recv(9999) if listener is self.udp else listener.accept()[0]
                except BlockingIOError:
                    break
                found.append(f"{listener.getsockname()!r} heard from a program")
                if isinstance(data, socket.socket):
                    data.close()
        try:
            found.append(f"the host's pipe got {os.read(self.pipe_out, 99)!r}")
        except BlockingIOError:
            pass
        return found

    def _others(self) -> list[str]:
        found = [f"the host got {name}" for name in self.signals]
        self.signals.clear()
        if self._host_state() != self.host_before:
            found.append("limits, priority or affinity of the host changed")
            self.host_before = self._host_state()
        try:
            after = self._victim_state() if self.victim.poll() is None else {"state": "dead"}
        except OSError:
            after = {"state": "dead"}
        changed = [k for k in self.victim_before if after.get(k) != self.victim_before[k]]
        if changed:
            found.append(f"the other process changed: {changed}")
            self.victim.kill()
            self.victim.wait()
            self._start_victim()
        return found

    def _kernel_names(self) -> list[str]:
        found = []
        for kind, remove in (("shm", "shmctl"), ("msg", "msgctl"), ("sem", "semctl")):
            table = Path(f"/proc/sysvipc/{kind}")
            for line in table.read_text().splitlines()[1:] if table.exists() else []:
                key, number = line.split()[:2]
                if int(key) == self.key:
                    found.append(f"SysV {kind} {number} was left behind")
                    removal = (0, 0) if kind != "sem" else (0, 0, 0)  # IPC_RMID is 0
                    getattr(self.libc, remove)(int(number), *removal)
        queue = f"/{self.mark}".encode()
        if (descriptor := self.libc.mq_open(queue, os.O_RDONLY)) >= 0:
            found.append("a message queue was left behind")
            os.close(descriptor)
            self.libc.mq_unlink(queue)
        return found

    def close(self) -> None:
        """Ends the other process, removes the files, gives the signals back."""
        self.victim.kill()
        self.victim.wait()
        for listener in self.sockets:
            listener.close()
        for descriptor in (self.pipe_in, self.pipe_out, self.open_secret):
            os.close(descriptor)
        shutil.rmtree(self.root)
        for number, handler in self.old_handlers.items():
            signal.signal(number, handler)
        self.libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
