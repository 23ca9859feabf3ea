"""Calls into the kernel through ctypes: other processes' memory, namespaces, names that stay."""

import platform

from tests.sandbox.attacks.program import Attack

X86 = platform.machine() == "x86_64"
FUTEX = 202 if X86 else 98
HEAD = """
import ctypes, os, struct, signal, time
libc = ctypes.CDLL(None, use_errno=True)
won = "@NOW@"[::-1]
"""

OTHERS = {
    "ptrace-attach": ("if libc.ptrace(16, @VICTIM@, 0, 0) == 0:\n    time.sleep(0.3)", False),
    "ptrace-seize-parent": (
        "if libc.ptrace(0x4206, os.getppid(), 0, 0) == 0:\n    print(won)",
        False,
    ),
    "memory-write-victim": (
        r"""
text = ctypes.create_string_buffer(b"overwritten")
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
here = iovec(ctypes.addressof(text), 8)
there = iovec(@VADDR@, 8)
libc.process_vm_writev(@VICTIM@, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
""",
        True,
    ),
    "memory-read-victim": (
        r"""
text = ctypes.create_string_buffer(99)
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
here = iovec(ctypes.addressof(text), 37)
there = iovec(@VADDR@, 37)
libc.process_vm_readv(@VICTIM@, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
print(text.value)
""",
        True,
    ),
    "memory-file-victim": (
        "f = open('/proc/@VICTIM@/mem', 'r+b', buffering=0)\nf.seek(@VADDR@)\nf.write(b'over')",
        True,
    ),
    "memory-file-parent": (
        "f = open(f'/proc/{os.getppid()}/mem', 'rb', buffering=0)\nprint(won)",
        False,
    ),
    "memory-file-self": (
        "x = ctypes.create_string_buffer(8)\nf = open('/proc/self/mem', 'r+b', buffering=0)\n"
        "f.seek(ctypes.addressof(x))\nf.write(won[:4].encode())\n"
        "if x.value == won[:4].encode():\n    print(won)",
        True,
    ),
    "clock-of-victim": ("time.clock_gettime((~@VICTIM@ << 3) | 2)\nprint(won)", True),
    "resolution-of-victims-clock": ("time.clock_getres((~@VICTIM@ << 3) | 2)\nprint(won)", True),
    # A futex with priority inheritance names its owner: EPERM where it lives, ESRCH where not.
    "futex-finds-victim": (
        f"""
word = ctypes.c_uint32(@VICTIM@)
libc.syscall({FUTEX}, ctypes.byref(word), 8 | 128, 0, None, None, 0)
if ctypes.get_errno() == 1:
    print(won)
""",
        True,
    ),
    "futex-lends-priority": (
        f"""
word = ctypes.c_uint32(@VICTIM@)
until = (ctypes.c_long * 2)(int(time.time()) + 1, 0)
libc.syscall({FUTEX}, ctypes.byref(word), 6, 0, ctypes.byref(until), None, 0)
if ctypes.get_errno() == 110:
    print(won)
""",
        True,
    ),
    "limits-of-victim": (
        "import resource\nresource.prlimit(@VICTIM@, resource.RLIMIT_NOFILE, (7, 7))",
        True,
    ),
    "limits-of-host": (
        "import resource\na = resource.prlimit(@HOST@, resource.RLIMIT_STACK)\n"
        "less = a[0] - 4096 if a[0] > 0 else 2**23\n"
        "resource.prlimit(@HOST@, resource.RLIMIT_STACK, (less, a[1]))",
        False,
    ),
    "limits-raised": (
        "import resource\n"
        "for r in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC):\n"
        "    before = resource.getrlimit(r)\n    if before[1] != -1:\n"
        "        resource.setrlimit(r, (before[1] + 1, before[1] + 1))\n        print(won)",
        False,
    ),
    "affinity-of-victim": ("os.sched_setaffinity(@VICTIM@, {0})", True),
    "affinity-of-host": (
        "os.sched_setaffinity(@HOST@, {0})\nos.sched_setaffinity(os.getppid(), {0})",
        True,
    ),
    "priority-of-victim": ("os.setpriority(os.PRIO_PROCESS, @VICTIM@, 7)", True),
    "priority-of-everyone": (
        "import pwd\nos.setpriority(os.PRIO_USER, os.getuid() or 65534, 3)\n"
        "os.setpriority(os.PRIO_PGRP, os.getpgid(@VICTIM@), 3)",
        False,
    ),
    "scheduler-of-victim": (
        "os.sched_setscheduler(@VICTIM@, os.SCHED_BATCH, os.sched_param(0))",
        True,
    ),
    "oom-score-of-victim": ("open('/proc/@VICTIM@/oom_score_adj', 'w').write('500')", True),
    "io-signal-to-host": (
        "r, w = os.pipe()\nlibc.fcntl(r, 8, @HOST@)\n"
        "libc.fcntl(r, 4, os.O_ASYNC)\nos.write(w, b'x')\ntime.sleep(0.1)",
        True,
    ),
    "io-signal-on-output": (
        "for fd in range(20):\n    libc.fcntl(fd, 8, @HOST@)\n"
        "    libc.fcntl(fd, 10, signal.SIGUSR1)\n"
        "    libc.fcntl(fd, 4, os.O_ASYNC | os.O_NONBLOCK)\n"
        "os.write(1, b'x')\ntime.sleep(0.1)",
        False,
    ),
    "lease-lock": (
        "f = open('@TARGET@', 'a')\nif libc.flock(f.fileno(), 2) == 0:\n    print(won)",
        True,
    ),
    "signal-queue-host": (
        "libc.sigqueue(@HOST@, signal.SIGUSR2, None)",
        True,
    ),
    "signal-tgkill-host": ("libc.syscall(234, @HOST@, @HOST@, signal.SIGUSR2)", True),
    "signal-tkill-victim": ("libc.syscall(200, @VICTIM@, 9)", True),
    "terminal-input": (
        "for fd in range(20):\n    if libc.ioctl(fd, 0x5412, b'x') == 0:\n        print(won)",
        False,
    ),
}

NAMES = {
    "shm-posix": (
        "fd = libc.shm_open(b'/@MARK@', os.O_CREAT | os.O_RDWR, 0o600)",
        True,
    ),
    "shm-python": (
        "from multiprocessing import shared_memory, resource_tracker\n"
        "resource_tracker.register = lambda *a: None\n"
        "shared_memory.SharedMemory('@MARK@', True, 99)",
        True,
    ),
    "shm-sysv": ("libc.shmget(@KEY@, 4096, 0o1600)", True),
    "sem-sysv": ("libc.semget(@KEY@, 1, 0o1600)", True),
    "msg-sysv": ("libc.msgget(@KEY@, 0o1600)", True),
    "mqueue": ("libc.mq_open(b'/@MARK@', os.O_CREAT | os.O_RDWR, 0o600, None)", True),
    "semaphore-posix": (
        "libc.sem_open.restype = ctypes.c_void_p\nlibc.sem_open(b'/@MARK@', os.O_CREAT, 0o600, 1)",
        True,
    ),
    "keyring": (
        "k = libc.syscall(248, b'user', b'@MARK@', b'x', 1, -4)\nif k > 0:\n    print(won)\n"
        "    libc.syscall(250, 3, k)",
        True,
    ),
    "memfd": ("if os.memfd_create('@MARK@') >= 0:\n    print(won)", True),
    "sethostname": (
        "if libc.sethostname(os.uname().nodename.encode(), "
        "len(os.uname().nodename)) == 0:\n    print(won)",
        False,
    ),
    "inotify": (
        "if libc.inotify_init() >= 0:\n    print(won)",
        True,
    ),
    "timers": (
        "n = 0\nt = ctypes.c_void_p()\nwhile n < 100000 and "
        "libc.timer_create(0, None, ctypes.byref(t)) == 0:\n    n += 1\n"
        "if n:\n    print(won)",
        False,
    ),
    "pipes": (
        "held = []\ntry:\n    while len(held) < 60:\n        held.append(os.pipe())\n"
        "except OSError:\n    pass\nif len(held) > 30:\n    print(won)",
        True,
    ),
}

PRIVILEGES = {
    "unshare-user": ("if libc.unshare(0x10000000) == 0:\n    print(won)", True),
    "unshare-net": ("if libc.unshare(0x40000000) == 0:\n    print(won)", False),
    "unshare-mount": ("if libc.unshare(0x20000) == 0:\n    print(won)", False),
    "clone-namespace": (
        "pid = libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)\n"
        "if pid == 0:\n    time.sleep(0.3)\n    os._exit(0)\nif pid > 0:\n    print(won)",
        False,
    ),
    "setns": (
        "if libc.setns(os.pidfd_open(@VICTIM@), 0x40000000) == 0:\n    print(won)",
        False,
    ),
    "mount": (
        "if libc.mount(b'none', b'@CANARY@', b'tmpfs', 0, None) == 0:\n"
        "    libc.umount2(b'@CANARY@', 2)\n    print(won)",
        False,
    ),
    "fsopen": ("if libc.syscall(430, b'tmpfs', 0) >= 0:\n    print(won)", False),
    "open-tree": ("if libc.syscall(428, -100, b'/', 1) >= 0:\n    print(won)", False),
    "chroot": ("if libc.chroot(b'/') == 0:\n    print(won)", True),
    "setuid-root": (
        "for f in (libc.setuid, libc.seteuid, libc.setfsuid):\n    f(0)\n"
        "if os.getuid() and libc.setresuid(0, 0, 0) == 0:\n    print(won)",
        False,
    ),
    "setgroups": (
        "if libc.setgroups(1, ctypes.byref(ctypes.c_int(0))) == 0:\n    print(won)",
        False,
    ),
    "capabilities": (
        "h = struct.pack('=II', 0x20080522, 0)\nd = struct.pack('=6I', *[2**32 - 1] * 6)\n"
        "if libc.capset(h, d) == 0:\n    print(won)",
        False,
    ),
    "personality": (
        "if libc.personality(0x0040000 | 0x0400000) >= 0:\n    print(won)",
        True,
    ),
    "no-new-privileges-off": ("if libc.prctl(38, 0, 0, 0, 0) == 0:\n    print(won)", False),
    "dumpable-and-ptracer": ("if libc.prctl(0x59616d61, -1, 0, 0, 0) == 0:\n    print(won)", False),
    "filter-replaced": (
        # A second filter that allows all: it may be added, but never loosens the first.
        "f = struct.pack('=HBBI', 6, 0, 0, 0x7fff0000)\nb = ctypes.create_string_buffer(f)\n"
        "p = struct.pack('=HxxxxxxQ', 1, ctypes.addressof(b))\n"
        "libc.prctl(38, 1, 0, 0, 0)\nlibc.prctl(22, 2, p)\n"
        "os.mkdir('@CANARY@/a')",
        True,
    ),
    "bpf": (
        "if libc.syscall(321, 0, struct.pack('=5I', 2, 4, 4, 1, 0), 20) >= 0:\n    print(won)",
        False,
    ),
    "perf-event": (
        "a = ctypes.create_string_buffer(struct.pack('=IIQ', 1, 112, 0), 112)\n"
        "if libc.syscall(298, a, 0, -1, -1, 0) >= 0:\n    print(won)",
        False,
    ),
    "userfaultfd": ("if libc.syscall(323, 1) >= 0:\n    print(won)", True),
    "io-uring": (
        "p = ctypes.create_string_buffer(120)\nif libc.syscall(425, 4, p) >= 0:\n    print(won)",
        True,
    ),
    "module-load": ("if libc.syscall(175, b'', 0, b'') == 0:\n    print(won)", False),
    "kexec-or-reboot": ("if libc.reboot(0x89abcdef) == 0:\n    print(won)", False),
    "clock": (
        "t = time.time()\nif libc.adjtimex(ctypes.create_string_buffer(256)) >= 0:\n    print(won)",
        True,
    ),
    "swap-and-quota": ("if libc.swapoff(b'@TARGET@') == 0:\n    print(won)", False),
    "kernel-log": (
        "b = ctypes.create_string_buffer(99)\nif libc.klogctl(3, b, 98) > 0:\n    print(won)",
        False,
    ),
    "file-handle": (
        "h = ctypes.create_string_buffer(struct.pack('=Ii', 128, 0), 200)\nm = ctypes.c_int()\n"
        "if libc.name_to_handle_at(-100, b'@SECRET@', h, ctypes.byref(m), 0) == 0:\n    print(won)",
        True,
    ),
    "fanotify": ("if libc.fanotify_init(0, 0) >= 0:\n    print(won)", False),
}

ATTACKS = [
    # Numbers of calls are those of x86_64; elsewhere they are other calls, tried all the same.
    Attack(f"{family}-{name}", HEAD + text, works_bare=bare and (X86 or "syscall(" not in text))
    for family, programs in (("other", OTHERS), ("name", NAMES), ("privilege", PRIVILEGES))
    for name, (text, bare) in programs.items()
]
