"""Many programs at once: order, threads, asyncio, signals of the host, lost zygotes, closing."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.sandbox import Layers, Limits, Sandbox, SandboxError, frames, process, worker
from distill_jax.sandbox.worker import Worker
from tests.sandbox.processes import descriptors, eventually, lives, zygotes

pytestmark = pytest.mark.slow


def test_a_batch_comes_back_in_order(sandbox: Sandbox) -> None:
    programs = [f"print(sum(range({n % 7}00)), {n})" for n in range(60)]
    results = sandbox.run_batch(iter(programs))
    assert [r.stdout for r in results] == [f"{sum(range(n % 7 * 100))} {n}\n" for n in range(60)]
    assert sandbox.run_batch([]) == []


def test_a_batch_of_every_kind(sandbox: Sandbox) -> None:
    results = sandbox.run_batch(["print(1)", "import os", "1/0", "import sympy\nprint(sympy.pi)"])
    assert [r.status for r in results] == ["ok", "rejected", "error", "ok"]
    assert results[3].stdout == "pi\n"


def test_a_batch_with_something_else_than_a_program_runs_nothing(sandbox: Sandbox) -> None:
    with pytest.raises(TypeError, match="one str"):
        sandbox.run_batch("print(1)")
    with pytest.raises(TypeError, match="NoneType, wanted str"):
        sandbox.run(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="NoneType, wanted str"):
        sandbox.run_batch(["print(1)", None, "print(3)"])  # type: ignore[list-item]


def test_a_thread_that_ends_unforeseen_does_not_shift_results(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, barrier = threading.current_thread(), threading.Barrier(2)

    def run(program: str) -> object:
        barrier.wait(20)  # so that each thread takes one of the two
        if threading.current_thread() is not own:
            raise LookupError
        return program

    monkeypatch.setattr(sandbox, "run", run)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with pytest.raises(SandboxError, match="1 of 2 programs were not run"):
        sandbox.run_batch(["1", "2"])


def test_a_reply_to_another_question_is_not_taken() -> None:
    zygote = process.Zygote("light", Limits(), Layers())
    try:
        zygote.await_ready(120.0)
        program = b"print('old')"
        zygote._socket.sendall(frames.REQUEST.pack(7, 0, len(program)) + program)
        with pytest.raises(process.ZygoteLost, match="answered request 7 instead of 8"):
            zygote.exchange(8, 0, b"print('new')", 30.0)
    finally:
        zygote.close()


def test_threads_get_their_own_results(sandbox: Sandbox) -> None:
    def one(n: int) -> bool:
        ending = "\n1/0" if n % 3 == 0 else ""
        result = sandbox.run(f"print({n})" + ending)
        return (result.stdout, result.status) == (f"{n}\n", "error" if n % 3 == 0 else "ok")

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(one, range(200)))


def test_workers_run_side_by_side() -> None:
    """Two programs that each sleep end together."""
    with Sandbox(workers=4, layers=Layers(syntax=False)) as own:
        start = time.monotonic()
        results = own.run_batch(["import time\ntime.sleep(1)\nprint(1)"] * 4)
        assert [r.stdout for r in results] == ["1\n"] * 4
        assert time.monotonic() - start < 3.5


def test_programs_do_not_see_each_other(unchecked: Sandbox) -> None:
    leave = "import builtins, math\nbuiltins.left = math.left = 1\nprint('left')"
    look = "import builtins, math\nprint(hasattr(builtins, 'left'), hasattr(math, 'left'))"
    assert [unchecked.run(p).stdout for p in (leave, look)] == ["left\n", "False False\n"]


def test_no_program_finds_the_one_before_in_its_memory() -> None:
    """A secret word is said in the first program's text, its output and its errors."""
    search = """
        found = 0
        for line in open('/proc/self/maps'):
            span, mode, *_ = line.split()
            first, last = (int(word, 16) for word in span.split('-'))
            if mode.startswith('r') and '[v' not in line:
                with open('/proc/self/mem', 'rb', 0) as memory:
                    memory.seek(first)
                    try:
                        found += memory.read(last - first).count(b'X'.join([b'SEC', b'RET']))
                    except OSError:
                        pass
        print(found)
    """
    search = "if 1:\n" + search
    bare = Layers(syntax=False, identity=False, landlock=False, filter=False)
    with Sandbox(layers=bare) as own:
        own_word = own.run("word = 'SECXRET'\n" + search)
        assert own_word.status == "ok" and int(own_word.stdout) > 0, own_word  # it can be found
        assert own.run("print('SECXRET' * 100)\nraise ValueError('SECXRET')").status == "error"
        after = own.run(search)
    assert (after.status, after.stdout) == ("ok", "0\n"), after


def made_in_a_thread() -> Sandbox:
    """By a thread that has ended."""
    made: list[Sandbox] = []
    thread = threading.Thread(target=lambda: made.append(Sandbox()))
    thread.start()
    thread.join()
    return made[0]


def test_equal_programs_give_equal_results_in_every_process(sandbox: Sandbox) -> None:
    program = (
        "print(set('abcdefgh'), hash('x'))\nfrom sympy import *\nx = symbols('x y z')\n"
        "print(sum(x).free_symbols, randprime(10**6, 10**7), solve(x[0]**2 - 3))"
    )
    outputs = {sandbox.run(program).stdout}
    before = zygotes(), descriptors()
    with made_in_a_thread() as own:
        outputs |= {own.run(program).stdout for _ in range(2)}
        # Zygotes outlive the thread that started them.
        assert own.run("print(1)").stdout == "1\n"
    assert len(outputs) == 1 and outputs.pop().endswith("[-sqrt(3), sqrt(3)]\n")
    assert (zygotes(), descriptors()) == before  # the zygote with sympy has gone too


def test_inside_asyncio(sandbox: Sandbox) -> None:
    async def main() -> list[str]:
        direct = sandbox.run("print('direct')").stdout
        threads = [asyncio.to_thread(sandbox.run, f"print({n})") for n in range(10)]
        return [direct] + [result.stdout for result in await asyncio.gather(*threads)]

    assert asyncio.run(main()) == ["direct\n"] + [f"{n}\n" for n in range(10)]


HOST = """
import signal, sys
from distill_jax.sandbox import Limits, Sandbox
alarms = []
signal.signal(signal.SIGALRM, lambda *_: alarms.append(1))
signal.signal(signal.SIGCHLD, {disposition})
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
before = [signal.getsignal(n) for n in signal.valid_signals()]
signal.setitimer(signal.ITIMER_REAL, 100)
with Sandbox(limits=Limits(cpu_s=0.2)) as sandbox:
    for n in range(5):
        assert sandbox.run("print(1)").stdout == "1\\n"
        assert sandbox.run("1/0").rc == 1
    assert sandbox.run("while True: pass").status == "timeout"
assert signal.getitimer(signal.ITIMER_REAL)[0] > 50, "the alarm was touched"
assert [signal.getsignal(n) for n in signal.valid_signals()] == before
assert not alarms
print("done")
"""


@pytest.mark.parametrize("disposition", ["signal.SIG_IGN", "signal.SIG_DFL", "lambda *_: 1 / 0"])
def test_the_hosts_signals_are_its_own(disposition: str) -> None:
    program = HOST.format(disposition=disposition)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_a_signal_handler_that_raises_does_not_swap_results(sandbox: Sandbox) -> None:
    """The interrupted program's reply must not be taken for the next one's."""

    class Interrupted(Exception):
        pass

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    with Sandbox() as own:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Interrupted):
                own.run("print('old')\nwhile True: pass")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert [own.run(f"print({n})").stdout for n in range(3)] == ["0\n", "1\n", "2\n"]


def test_interrupting_a_batch_ends_what_runs_in_other_threads() -> None:
    class Stop(Exception):
        pass

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    with Sandbox(workers=2, limits=Limits(wall_s=120.0, cpu_s=120.0)) as own:
        begun = time.monotonic()
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(Stop):
                own.run_batch(["while True: pass"] * 4)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert time.monotonic() - begun < 60  # not the 120 of the other worker's program
        assert [r.stdout for r in own.run_batch(["print(1)", "print(2)"])] == ["1\n", "2\n"]


def test_a_result_is_true_where_it_ended_well(sandbox: Sandbox) -> None:
    assert sandbox.run("print(1)") and not sandbox.run("1 / 0")


def test_a_signal_handler_may_close_the_sandbox_it_interrupts() -> None:
    def close(number: int, frame: FrameType | None) -> None:
        own.close()

    own = Sandbox()
    before = signal.signal(signal.SIGALRM, close)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(SandboxError, match="closed"):
            own.run("while True: pass")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        own.close()


def test_a_killed_zygote_is_replaced_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    stop = threading.Event()
    others = zygotes()
    # Held by each worker while it starts a zygote: one that is struck then is the machine's fault.
    starts = threading.Semaphore(2)
    spawn, ready = Worker.spawn, Worker.ready

    def held_spawn(self: Worker, kind: str) -> None:
        starts.acquire()
        spawn(self, kind)

    def released_ready(self: Worker, kind: str) -> None:
        try:
            ready(self, kind)
        finally:
            ended.clear()
            starts.release()

    ended, run = list[bytes](), Worker.run

    def counted_run(self: Worker, program: bytes) -> Any:
        result = run(self, program)
        ended.append(program)
        return result

    monkeypatch.setattr(Worker, "spawn", held_spawn)
    monkeypatch.setattr(Worker, "ready", released_ready)
    monkeypatch.setattr(Worker, "run", counted_run)
    with Sandbox(workers=2, layers=Layers(syntax=False)) as own:
        # After each start of a zygote ten programs end before the next blow, however slow all is.
        def strike() -> None:
            while not stop.wait(0.01):
                with starts, starts:
                    if len(ended) < 10:
                        continue
                    ended.clear()
                    os.kill(chance.choice(sorted(zygotes() - others)), signal.SIGKILL)

        striker = threading.Thread(target=strike)
        striker.start()
        try:
            programs = [f"import time\ntime.sleep(0.03)\nprint({n})" for n in range(100)]
            results = own.run_batch(programs)
        finally:
            stop.set()
            striker.join()
    # A blow may hit the child alone: then the program was ended by a signal, and it says so.
    for n, result in enumerate(results):
        right = (result.status, result.stdout) == ("ok", f"{n}\n")
        assert right or (result.status, result.rc) == ("error", -9), result
    assert sum(result.status == "ok" for result in results) > 80


def test_a_zygote_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "GRACE_S", 0.5)
    others = zygotes()
    with Sandbox(limits=Limits(wall_s=0.5)) as own:
        (old,) = zygotes() - others
        os.kill(old, signal.SIGSTOP)
        assert own.run("print(1)").stdout == "1\n"
        assert eventually(lambda: not lives(old))


def test_zygotes_that_die_again_and_again_are_the_machines_failure() -> None:
    bare = Layers(syntax=False, filter=False, limits=False, identity=False, landlock=False)
    with Sandbox(layers=bare) as own:
        with pytest.raises(SandboxError, match="two zygotes were lost"):
            own.run("import os\nos.kill(os.getppid(), 9)\nwhile True: pass")
        with pytest.raises(SandboxError, match="two zygotes were lost"):
            own.run_batch(["print(1)", "import os\nos.kill(os.getppid(), 9)\nwhile True: pass"])
        assert own.run("print(2)").stdout == "2\n"


def test_closing_while_running() -> None:
    others = zygotes()
    own = Sandbox(workers=2, layers=Layers(syntax=False))
    started = zygotes() - others
    failures: list[str] = []

    def work() -> None:
        try:
            own.run("import time\ntime.sleep(60)")
        except SandboxError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: len(zygotes() - others) == 4)  # each with a child
    start = time.monotonic()
    own.close()
    own.close()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start < 5
    assert len(failures) == 4 and all("closed" in text for text in failures), failures
    assert zygotes() == others and not any(map(lives, started))
    with pytest.raises(SandboxError, match="closed"):
        own.run("print(1)")


def test_a_fork_of_the_host_does_not_use_its_sandbox(sandbox: Sandbox) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sandbox.close()  # not the child's to close
            sandbox.run("print(1)")
        except SandboxError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as said:
        assert "forked" in said.read()
    assert sandbox.run("print(1)").stdout == "1\n"


def test_no_workers() -> None:
    for workers in (0, -1, 10**9, None, "2"):
        with pytest.raises(ConfigError, match="workers="):
            Sandbox(workers=workers)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="limits is a dict"):
        Sandbox(limits={"wall_s": 1.0})  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", ["syntax", "identity", "limits", "landlock", "filter"])
def test_with_one_layer_less(layer: str) -> None:
    with Sandbox(layers=Layers(**{layer: False})) as own:
        assert own.run("print(1)").stdout == "1\n"
        assert own.run("import os").status == ("ok" if layer == "syntax" else "rejected")
