"""Signals to others, forks that multiply or outlive, threads, other programs started."""

from tests.sandbox.attacks.program import Attack, one_of

# SIGURG is ignored by default, so that a hit on a whole group or machine ends only the victim,
# which listens for it.
SIGNALS = {
    "kill-victim": ("os.kill(@VICTIM@, 9)", True),
    "kill-victim-term": ("os.kill(@VICTIM@, 15)", True),
    "stop-victim": ("os.kill(@VICTIM@, 19)", True),
    "kill-everything": ("os.kill(-1, signal.SIGURG)", False),
    "kill-host": ("os.kill(@HOST@, signal.SIGUSR1)", True),
    "kill-parent": ("os.kill(os.getppid(), signal.SIGKILL)", False),
    "stop-parent": ("os.kill(os.getppid(), signal.SIGSTOP)", False),
    "interrupt-parent": ("os.kill(os.getppid(), signal.SIGINT)", False),
    "kill-own-group": ("os.kill(0, signal.SIGKILL)", False),
    "killpg-host": ("os.killpg(os.getpgid(@HOST@), signal.SIGURG)", True),
    "killpg-parent": ("os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)", False),
    "pidfd-victim": ("signal.pidfd_send_signal(os.pidfd_open(@VICTIM@), 9)", True),
    "neighbours": (
        "me = os.getpid()\nfor p in range(me - 60, me + 60):\n    if p not in (me, @VICTIM@):\n"
        "        try:\n            os.kill(p, signal.SIGURG)\n"
        "            os.kill(p, signal.SIGWINCH)\n"
        "        except OSError:\n            pass",
        False,
    ),
}

OUTLIVE = r"""
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(256):
            try:
                os.close(fd)
            except OSError:
                pass
        time.sleep(30)
        os._exit(0)
    os._exit(0)
"""

CHILDREN = {
    "child-stays": ("if os.fork() == 0:\n    time.sleep(30)", False),
    "detached": (OUTLIVE, True),
    "detached-keeps-pipes": (OUTLIVE.replace("for fd in range(256)", "for fd in ()"), False),
    "detached-writes-later": (
        OUTLIVE.replace("time.sleep(30)", "time.sleep(0.2)\n        open('@CANARY@/a', 'w')"),
        False,
    ),
    "own-group": ("os.setpgid(0, 0)\nif os.fork() == 0:\n    time.sleep(30)", False),
    "forkpty": ("import pty\nif pty.fork()[0] == 0:\n    time.sleep(30)", False),
    "vfork-spawn": (
        "os.posix_spawn('/bin/sh', ['sh', '-c', 'sleep 30 >/dev/null 2>&1 &'], {})",
        True,
    ),
    "bomb": (
        # Seven doublings, not for ever: should it work, the machine must survive it.
        "for _ in range(7):\n    try:\n        os.fork()\n"
        "    except OSError:\n        pass\ntime.sleep(30)",
        False,
    ),
    "bomb-wide": (
        "for _ in range(100):\n    if os.fork() == 0:\n        time.sleep(30)\n        os._exit(0)",
        False,
    ),
    "zombies": (
        "for _ in range(50):\n    if os.fork() == 0:\n        os._exit(0)\ntime.sleep(30)",
        False,
    ),
    "multiprocessing": (
        "import multiprocessing\n"
        "p = multiprocessing.get_context('fork').Process(target=time.sleep, args=(30,))\n"
        "p.start()\nos._exit(0)",
        False,
    ),
    "process-pool": (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "import multiprocessing\n"
        "e = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork'))\n"
        "e.submit(time.sleep, 30)\ntime.sleep(0.2)\nos._exit(0)",
        False,
    ),
}

PROGRAMS = {
    "execv": ("os.execv('/bin/sh', ['sh', '-c', 'echo > @CANARY@/a'])", True),
    "execve-interpreter": (
        "import sys\nos.execv(sys.executable, ['p', '-c', 'open(\"@CANARY@/a\", \"w\")'])",
        True,
    ),
    "system": ("os.system('echo > @CANARY@/a')", True),
    "popen": ("os.popen('echo > @CANARY@/a').read()", True),
    "subprocess": ("import subprocess\nsubprocess.run(['touch', '@CANARY@/a'])", True),
    "posixsubprocess-shell": (
        "import subprocess\nsubprocess.Popen('echo > @CANARY@/a', shell=True).wait()",
        True,
    ),
    "memfd-exec": (
        "fd = os.memfd_create('x')\nos.write(fd, open('/bin/sh', 'rb').read())\n"
        "os.execve(f'/proc/self/fd/{fd}', ['sh', '-c', 'echo > @CANARY@/a'], {})",
        True,
    ),
    "memfd-script": (
        "fd = os.memfd_create('x')\nos.write(fd, b'#!/bin/sh\\necho > @CANARY@/a\\n')\n"
        "os.posix_spawn(f'/proc/{os.getpid()}/fd/{fd}', ['x'], {})\ntime.sleep(0.3)",
        True,
    ),
    "execveat-descriptor": (
        "fd = os.open('/bin/sh', os.O_RDONLY)\n"
        "os.execve(fd, ['sh', '-c', 'echo > @CANARY@/a'], {})",
        True,
    ),
    "loader-as-program": (
        "import glob\nfor p in glob.glob('/lib*/ld-linux*.so*'):\n"
        "    os.spawnv(os.P_WAIT, p, ['ld', '/bin/sh', '-c', 'echo > @CANARY@/a'])",
        True,
    ),
}

THREADS = {
    "threads-many": (
        "import threading\nfor _ in range(500):\n"
        "    threading.Thread(target=time.sleep, args=(30,)).start()",
        one_of("error", "timeout", "violation", "memory"),
    ),
    "thread-outlives-main": (
        "import _thread\n"
        "_thread.start_new_thread(lambda: (time.sleep(30), print('@NOW@'[::-1])), ())",
        one_of("ok", "error", "timeout", "violation"),
    ),
    "thread-cpu": (
        "import threading\ndef f():\n    while True:\n        pass\n"
        "for _ in range(4):\n    threading.Thread(target=f).start()",
        one_of("error", "timeout", "violation"),
    ),
}

HEAD = "import os, signal, time\n"
ATTACKS = [
    Attack(f"signal-{name}", HEAD + text, works_bare=bare) for name, (text, bare) in SIGNALS.items()
]
ATTACKS += [
    Attack(f"fork-{name}", HEAD + text, works_bare=bare) for name, (text, bare) in CHILDREN.items()
]
ATTACKS += [
    Attack(f"exec-{name}", HEAD + text, works_bare=bare) for name, (text, bare) in PROGRAMS.items()
]
ATTACKS += [Attack(name, HEAD + text, expect=expect) for name, (text, expect) in THREADS.items()]
