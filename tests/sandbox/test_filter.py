"""The assembled BPF, run by a small interpreter, does what the policy says on both processors."""

import errno
import random

import pytest

from distill_jax.sandbox import filter as allow_list
from distill_jax.sandbox.filter import ALLOW, ERRNO, KILL, Instruction, assemble

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
EACCES, EPERM, ENOTTY = (ERRNO | n for n in (errno.EACCES, errno.EPERM, errno.ENOTTY))

# By hand, from the kernel's tables: x86_64, aarch64. None: that processor does not have it.
KNOWN = {
    "read": (0, 63, ALLOW),
    "exit_group": (231, 94, ALLOW),
    "futex": (202, 98, KILL),  # with operation 0, which is not private
    "clock_nanosleep": (230, 115, ALLOW),
    "brk": (12, 214, ALLOW),
    "open": (2, None, EACCES),
    "openat": (257, 56, EACCES),
    "newfstatat": (262, 79, EACCES),
    "readlinkat": (267, 78, EACCES),
    "unlinkat": (263, 35, EACCES),
    "ioctl": (16, 29, ENOTTY),
    "prctl": (157, 167, EPERM),
    "fcntl": (72, 25, EPERM),
    "clone": (56, 220, KILL),
    "fork": (57, None, KILL),
    "vfork": (58, None, KILL),
    "clone3": (435, 435, KILL),
    "execve": (59, 221, KILL),
    "execveat": (322, 281, KILL),
    "socket": (41, 198, KILL),
    "socketpair": (53, 199, KILL),
    "connect": (42, 203, KILL),
    "bind": (49, 200, KILL),
    "sendto": (44, 206, KILL),
    "sendmsg": (46, 211, KILL),
    "ptrace": (101, 117, KILL),
    "kill": (62, 129, KILL),
    "tkill": (200, 130, KILL),
    "tgkill": (234, 131, KILL),
    "rt_sigqueueinfo": (129, 138, KILL),
    "pidfd_send_signal": (424, 424, KILL),
    "pidfd_getfd": (438, 438, KILL),
    "process_vm_readv": (310, 270, KILL),
    "process_vm_writev": (311, 271, KILL),
    "memfd_create": (319, 279, KILL),
    "memfd_secret": (447, 447, KILL),
    "shmget": (29, 194, KILL),
    "shmat": (30, 196, KILL),
    "semget": (64, 190, KILL),
    "msgget": (68, 186, KILL),
    "mq_open": (240, 180, KILL),
    "bpf": (321, 280, KILL),
    "io_uring_setup": (425, 425, KILL),
    "io_uring_enter": (426, 426, KILL),
    "userfaultfd": (323, 282, KILL),
    "unshare": (272, 97, KILL),
    "setns": (308, 268, KILL),
    "mount": (165, 40, KILL),
    "chroot": (161, 51, KILL),
    "pivot_root": (155, 41, KILL),
    "seccomp": (317, 277, KILL),
    "setuid": (105, 146, KILL),
    "keyctl": (250, 219, KILL),
    "perf_event_open": (298, 241, KILL),
    "personality": (135, 92, KILL),
    "pwrite64": (18, 68, KILL),
    "sendfile": (40, 71, KILL),
    "splice": (275, 76, KILL),
    "remap_file_pages": (216, 234, KILL),
    "setsid": (112, 157, KILL),
    "reboot": (169, 142, KILL),
    "init_module": (175, 105, KILL),
}


def run(program: list[Instruction], number: int, arch: int, args: tuple[int, ...] = ()) -> int:
    """Classic BPF over struct seccomp_data: only the instructions that seccomp filters use."""
    words = [number, arch, 0, 0]
    for argument in (*args, *(0,) * (6 - len(args))):
        words += [argument & 0xFFFFFFFF, argument >> 32]
    accumulator, at = 0, 0
    while True:
        code, jump_true, jump_false, k = program[at]
        at += 1
        if code == 0x20:
            accumulator = words[k // 4]
        elif code == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            at += jump_true if holds[code] else jump_false


@pytest.mark.parametrize("arch", ARCH)
@pytest.mark.parametrize("name", KNOWN)
def test_known_calls(arch: str, name: str) -> None:
    x86_64, aarch64, action = KNOWN[name]
    number = x86_64 if arch == "x86_64" else aarch64
    if number is not None:
        assert run(assemble(arch, (1, 2)), number, ARCH[arch]) == action


@pytest.mark.parametrize("arch", ARCH)
def test_every_number_gets_its_groups_action(arch: str) -> None:
    program = assemble(arch, (1, 2))
    names = {n: name for name, n in allow_list.ARCHITECTURES[arch].numbers.items()}
    plain = {
        **dict.fromkeys(allow_list.ALLOWED, ALLOW),
        **dict.fromkeys(allow_list.NO_ACCESS, EACCES),
        **dict.fromkeys(allow_list.NOT_PERMITTED, EPERM),
        **dict.fromkeys(allow_list.NOT_A_TERMINAL, ENOTTY),
        # With all arguments 0: a descriptor not given, no PROT_EXEC, one's own limits.
        **dict.fromkeys(allow_list.TO_RESULTS, EPERM),
        **dict.fromkeys(allow_list.NOT_EXECUTABLE, ALLOW),
        **dict.fromkeys(allow_list.OWN_LIMITS, ALLOW),
        **dict.fromkeys(allow_list.CLOCKS, ALLOW),
        **dict.fromkeys(allow_list.LOCKS, KILL),  # waiting that is not private
    }
    for number in (*range(601), 0x3FFFFFFF, 0xFFFFFFFF):
        expected = plain[names[number]] if number in names else KILL
        assert run(program, number, ARCH[arch]) == expected, (number, names.get(number))
    assert set(names.values()) <= set(plain)


def test_every_name_of_the_policy_has_a_number() -> None:
    """A misspelt name would be left out in silence: aarch64 lacks only calls that it never had."""
    named = [name for name, _ in allow_list._bodies((1, 2))]
    assert len(named) == len(set(named))
    tables = allow_list.ARCHITECTURES
    assert set(named) == set(tables["x86_64"].numbers)
    missing = set(named) - set(tables["aarch64"].numbers)
    assert missing == set(
        "open creat stat lstat access readlink getdents mkdir rmdir unlink rename link symlink "
        "mknod chmod chown lchown utime utimes time dup2 pipe alarm getpgrp arch_prctl".split()
    )


@pytest.mark.parametrize("arch", ARCH)
def test_numbers_of_another_architecture_kill(arch: str) -> None:
    program = assemble(arch, (1, 2))
    i386, arm = 0x40000003, 0x40000028
    for other in (i386, arm, *set(ARCH.values()) - {ARCH[arch]}, 0):
        assert {run(program, number, other, (1,)) for number in range(601)} == {KILL}


def test_x32_numbers_kill() -> None:
    program = assemble("x86_64", (1, 2))
    for number in range(601):
        assert run(program, 0x40000000 + number, ARCH["x86_64"], (1,)) == KILL


@pytest.mark.parametrize("arch", ARCH)
@pytest.mark.parametrize("name", ["write", "writev"])
@pytest.mark.parametrize("fds", [(1, 2), (1,), (5,)])
def test_only_the_results_may_be_written(arch: str, name: str, fds: tuple[int, ...]) -> None:
    program = assemble(arch, fds)
    number = allow_list.ARCHITECTURES[arch].numbers[name]
    for fd in (*range(20), 0xFFFFFFFF):
        expected = ALLOW if fd in fds else EPERM
        assert run(program, number, ARCH[arch], (fd,)) == expected
        # The kernel looks at the low half alone, and so must the filter.
        assert run(program, number, ARCH[arch], (fd | 7 << 32,)) == expected


@pytest.mark.parametrize("arch", ARCH)
@pytest.mark.parametrize("name", ["mmap", "mprotect", "pkey_mprotect"])
def test_nothing_becomes_executable(arch: str, name: str) -> None:
    program = assemble(arch, (1, 2))
    number = allow_list.ARCHITECTURES[arch].numbers[name]
    for protection in range(16):
        expected = EACCES if protection & 4 else ALLOW
        assert run(program, number, ARCH[arch], (4096, 4096, protection)) == expected


@pytest.mark.parametrize("arch", ARCH)
@pytest.mark.parametrize(
    ("args", "action"),
    [
        ((0, 9, 0, 1 << 40), ALLOW),
        ((0, 9, 1 << 12), EPERM),
        ((0, 9, 1 << 32), EPERM),
        ((1, 9, 0), EPERM),
    ],
)
def test_limits_can_be_read_only(arch: str, args: tuple[int, ...], action: int) -> None:
    number = allow_list.ARCHITECTURES[arch].numbers["prlimit64"]
    assert run(assemble(arch, (1, 2)), number, ARCH[arch], args) == action


@pytest.mark.parametrize("arch", ARCH)
@pytest.mark.parametrize("name", ["clock_gettime", "clock_getres", "clock_nanosleep"])
def test_no_clock_of_another_process(arch: str, name: str) -> None:
    number = allow_list.ARCHITECTURES[arch].numbers[name]
    program = assemble(arch, (1, 2))
    for clock in range(12):
        assert run(program, number, ARCH[arch], (clock,)) == ALLOW
    for pid in (1, 2, 4242, 2**22):
        for kind in range(8):
            clock = ((~pid << 3) | kind) & 0xFFFFFFFF
            assert run(program, number, ARCH[arch], (clock,)) == ERRNO | errno.EINVAL


@pytest.mark.parametrize("arch", ARCH)
def test_locks_only_inside_the_process(arch: str) -> None:
    """Operations of linux/futex.h: 0 wait, 1 wake, 9 and 10 with a bit set; 128 private."""
    number = allow_list.ARCHITECTURES[arch].numbers["futex"]
    program = assemble(arch, (1, 2))
    allowed = {128, 129, 137, 138, 384, 393}
    for operation in range(1024):
        wanted = ALLOW if operation in allowed else KILL
        assert run(program, number, ARCH[arch], (4096, operation)) == wanted, operation


@pytest.mark.parametrize("arch", ARCH)
def test_the_program_is_one_that_the_kernel_takes(arch: str) -> None:
    program = assemble(arch, (1, 2))
    assert len(program) <= 4096
    for at, (code, jump_true, jump_false, k) in enumerate(program):
        if code in (0x15, 0x35, 0x45):
            assert at + 1 + max(jump_true, jump_false) < len(program)
        elif code == 0x20:
            assert k % 4 == 0 and k < 64
    assert program[-1].code == 0x06
    raw = allow_list.pack(program)
    assert len(raw) == 8 * len(program)


def test_the_interpreter_sees_a_difference() -> None:
    """With any one action changed, some number gets another answer."""
    program = assemble("x86_64", (1, 2))
    seen = [run(program, n, ARCH["x86_64"], (n % 3,)) for n in range(601)]
    picked = random.Random(0).sample([i for i, p in enumerate(program) if p.k == KILL], 5)
    for at in picked:
        broken = [p._replace(k=ALLOW) if i == at else p for i, p in enumerate(program)]
        numbers = [n for n in range(601)] + [2**32 - 1]
        changed = [run(broken, n, ARCH["x86_64"], (n % 3,)) for n in numbers]
        wrong_arch = run(broken, 0, 0)
        assert changed[:601] != seen or changed[-1] != KILL or wrong_arch != KILL
