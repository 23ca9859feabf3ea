"""The host's side of one zygote: start it, exchange one request for one reply, end it."""

import importlib.util
import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from distill_jax.sandbox import frames
from distill_jax.sandbox.limits import Layers, Limits, SandboxError

BOOT = str(Path(__file__).with_name("boot.py"))
ZYGOTE = "distill_jax.sandbox.zygote"
LEAVE_S = 2.0  # a zygote asked to end has this long before it is killed

# Equal hashes in every process make the order of sets, and so results, repeatable.
# Symbols of libraries are looked up by the zygote, not again by each child.
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "LC_ALL": "C.UTF-8",
    "LD_BIND_NOW": "1",
}
_KEPT = ("LD_LIBRARY_PATH", "PYTHONHOME")  # without these some interpreters do not start


class ZygoteLost(Exception):
    """The zygote ended, hung or answered another question; it must be replaced."""


class Zygote:
    """One zygote process, light or sympy, and the socket to it. Not thread-safe, but for `hang_up`.

    Its children get the limits and layers.
    """

    def __init__(self, kind: str, limits: Limits, layers: Layers):
        self._socket, theirs = socket.socketpair()
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                _command(kind, limits, layers),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT | {k: os.environ[k] for k in _KEPT if k in os.environ},
                cwd="/",
                start_new_session=True,  # the terminal's Ctrl-C is the host's alone
            )
        except OSError as error:
            self._socket.close()
            raise SandboxError(f"the zygote cannot be started: {error}") from error
        finally:
            theirs.close()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def await_ready(self, timeout_s: float) -> None:
        """Waits until everything is preloaded.

        Raises:
            ZygoteLost: it ended or was too slow.
            SandboxError: it said why it cannot work.
        """
        _, reply = self._receive(time.monotonic() + timeout_s)
        if reply.cause != frames.READY:
            raise SandboxError(
                f"the zygote cannot work: {str(reply.err, 'utf-8', 'replace')}",
                fix="see `python -m launch.sandbox --probe`",
            )

    def exchange(self, number: int, flags: int, program: bytes, timeout_s: float) -> frames.Outcome:
        """Sends one program, as UTF-8 and with flags of `frames`, and waits for its reply.

        Raises:
            ZygoteLost: no reply within timeout_s seconds, or to another number.
        """
        deadline = time.monotonic() + timeout_s
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(frames.REQUEST.pack(number, flags, len(program)) + program)
        except OSError as error:
            raise ZygoteLost(f"it took no request ({error})") from error
        answered, reply = self._receive(deadline)
        if answered != number or reply.cause >= len(frames.CAUSES):
            raise ZygoteLost(f"it answered request {answered} instead of {number}")
        return reply

    def hang_up(self) -> None:
        """Tells the zygote to end, from any thread; whoever waits for a reply gets ZygoteLost."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has gone already

    def close(self) -> None:
        """Ends the zygote, and with it its child, and frees the descriptors."""
        self.hang_up()
        self._socket.close()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _receive(self, deadline: float) -> tuple[int, frames.Outcome]:
        head = frames.REPLY.unpack(self._read(frames.REPLY.size, deadline))
        number, *found, out, err = head
        body = self._read(out + err, deadline)
        return number, frames.Outcome._make([*found, body[:out], body[out:]])

    def _read(self, size: int, deadline: float) -> bytes:
        got = bytearray()
        while len(got) < size:
            left_ms = (deadline - time.monotonic()) * 1e3
            if left_ms <= 0 or not self._poll.poll(left_ms):
                raise ZygoteLost("it did not answer in time")
            try:
                more = self._socket.recv(min(size - len(got), 1 << 20))
            except OSError as error:
                raise ZygoteLost(f"its socket broke ({error})") from error
            if not more:
                raise ZygoteLost("it ended")
            got += more
        return bytes(got)


def _command(kind: str, limits: Limits, layers: Layers) -> list[str]:
    names = [name for name, there in asdict(layers).items() if there]
    settings = asdict(limits) | {
        "kind": kind,
        "layers": ",".join(names),
        "path": _where_sympy_is() if kind == "sympy" else "",
    }
    # -I would ignore PYTHONHASHSEED; the environment is empty but for what stands above.
    flags = ["-s", "-P", "-S"]
    return [sys.executable, *flags, BOOT, ZYGOTE, *(f"{k}={v}" for k, v in settings.items())]


def _where_sympy_is() -> str:
    """The folders of sympy and mpmath, since the zygote does not look into site-packages."""
    folders = []
    for name in ("sympy", "mpmath"):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise SandboxError(f"{name} is not installed", fix="pip install sympy")
        folders.append(str(Path(spec.submodule_search_locations[0]).parent))
    return os.pathsep.join(dict.fromkeys(folders))
