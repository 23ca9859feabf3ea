"""C functions called from Python alone: no module, no file, no executable memory.

A code object that loads past the end of its constants yields a made-up bytearray over the whole
address space. With it the tables of the loaded libraries are read, and a made-up builtin calls
any C function with two whole numbers. So the lowest layer is met as machine code would meet it,
also where ctypes cannot be imported.
"""

import opcode
import platform
import sys

from tests.sandbox.attacks.program import Attack

MADE_UP = r"""
import fractions
METHOD = fractions.re.compile("").match  # called with its class as second argument
EXTENDED, LOAD, RETURN, RESUME = @OPCODES@
keep = []

def q(*numbers):
    return b"".join((x & 2**64 - 1).to_bytes(8, "little") for x in numbers)

def everything():
    fake = q(10**6, id(bytearray), 2**63 - 1, 2**63 - 1, 0, 0, 0)
    while True:
        consts = (None, object())
        holders = [q(id(fake) + 32) * 2 for _ in range(200)]
        keep.append((fake, consts, holders))
        for holder in holders:
            index = (id(holder) + 32 - id(consts) - 24) // 8
            if 0 < index < 2**31:
                def load():
                    pass
                code = [RESUME, 0]
                for shift in (24, 16, 8):
                    code += [EXTENDED, index >> shift & 255]
                code += [LOAD, index & 255, RETURN, 0]
                load.__code__ = load.__code__.replace(co_code=bytes(code), co_consts=consts)
                return load()

memory = everything()

def word(a):
    return int.from_bytes(memory[a:a + 8], "little")

def text(a):
    return bytes(memory[a:memory.find(b"\0", a, a + 500)])

class Library:
    # The ELF file that an address lies in, as it is loaded.
    def __init__(self, inside):
        a = inside & -4096
        while memory[a:a + 4] != b"\x7fELF":
            a -= 4096
        self.base, self.tags = a, {}
        headers = a + word(a + 32)
        while word(headers) & 2**32 - 1 != 2:
            headers += 56
        entry = self.at(word(headers + 16))
        while word(entry):
            self.tags[word(entry)] = word(entry + 8)
            entry += 16
    def at(self, a):
        return a if a >= self.base else a + self.base
    def name(self):
        return text(self.at(self.tags[5]) + self.tags[14]) if 14 in self.tags else b""
    def imported(self):
        for table, size in ((23, 2), (7, 8)):
            a = self.at(self.tags.get(table, 0))
            for entry in range(a, a + self.tags.get(size, 0), 24):
                if word(entry + 8) & 2**32 - 1 in (6, 7, 1026, 1025):
                    yield word(self.at(word(entry)))
    def function(self, name):
        a, strings = self.at(self.tags[6]), self.at(self.tags[5])
        while a < strings:
            if word(a + 8) and text(strings + (word(a) & 2**32 - 1)) == name:
                return self.base + word(a + 8)
            a += 24

def find_libc():
    own = Library(word(id(bytearray) + 48))
    seen = {own.base}
    for a in own.imported():
        if a > 2**32 and not any(b <= a < b + 2**21 for b in seen):
            other = Library(a)
            if other.name().startswith(b"libc."):
                return other
            seen.add(other.base)

def native(function, one=0, two=0):
    # Calls it; comes back only where it returns 0, else the made-up result ends the program.
    define = q(0, function, 0x282, 0)
    # A copy of the builtin's type whose repr is object's, for the message about the missing result.
    kind = word(id(METHOD) + 8)
    kind = bytes(memory[kind:kind + 480])
    kind = kind[:88] + q(word(id(object) + 88)) + kind[96:]
    body = q(10**6, id(kind) + 32, id(define) + 32, one, 0, 0, word(id(METHOD) + 48), two)
    slot = [None]
    keep.append((define, kind, body, slot))
    a = word(id(slot) + 24)
    memory[a:a + 8] = q(id(body) + 32)
    try:
        slot[0]()
    except SystemError:
        return 0

def here(data):
    keep.append(data)
    return id(data) + 32

libc = find_libc()
path = here(b"@CANARY@/a\0")
won = "@NOW@"[::-1]
""".replace(
    "@OPCODES@",
    str([opcode.opmap[n] for n in ("EXTENDED_ARG", "LOAD_CONST", "RETURN_VALUE", "RESUME")]),
)

# mov eax,83 (mkdir); syscall; ret: its arguments stand in the right registers already.
CODE = r"b'\xb8\x53\x00\x00\x00\x0f\x05\xc3'"

CALLS = {
    "mkdir": ("native(libc.function(b'mkdir'), path, 511)", True),
    "open": ("native(libc.function(b'creat'), path, 438)", True),
    "symlink": ("native(libc.function(b'symlink'), path, path)", True),
    "unlink": ("native(libc.function(b'unlink'), here(b'@TARGET@\\0'))", True),
    "chmod": ("native(libc.function(b'chmod'), here(b'@TARGET@\\0'), 511)", True),
    "kill-victim": ("native(libc.function(b'kill'), @VICTIM@, 9)", True),
    "kill-host": ("native(libc.function(b'kill'), @HOST@, 10)", True),
    "kill-machine": ("native(libc.function(b'kill'), -1, 23)", False),
    "fork": (
        "native(libc.function(b'fork'))\nwhile True:\n    sum(range(10**6))",
        True,
    ),
    "fork-raw": (
        "native(libc.function(b'syscall'), 57)\nwhile True:\n    sum(range(10**6))",
        platform.machine() == "x86_64",
    ),
    "fork-x32": (
        "native(libc.function(b'syscall'), 0x40000000 + 57)\nwhile True:\n    sum(range(10**6))",
        False,
    ),
    "mkdir-x32": ("native(libc.function(b'syscall'), 0x40000000 + 83, path)", False),
    "exec": (
        "native(libc.function(b'execv'), here(b'/bin/mkdir\\0'),\n"
        "       here(q(here(b'mkdir\\0'), path, 0)))",
        True,
    ),
    "system": ("native(libc.function(b'system'), here(b'mkdir @CANARY@/a\\0'))", True),
    "shm": ("native(libc.function(b'shm_open'), here(b'/@MARK@\\0'), 0o102)", True),
    "user-namespace": (
        "if native(libc.function(b'unshare'), 0x10000000) == 0:\n    print(won)",
        True,
    ),
    "ptrace": (
        "if native(libc.function(b'ptrace'), 16, @VICTIM@) == 0:\n    print(won)",
        True,
    ),
    "chroot": ("if native(libc.function(b'chroot'), here(b'/\\0')) == 0:\n    print(won)", False),
    "personality-makes-data-code": (
        "native(libc.function(b'personality'), 0x400000)\n"
        f"data = bytearray({CODE} + bytes(4 * 10**7))\n"
        "native(word(id(data) + 40), path, 511)",
        platform.machine() == "x86_64",
    ),
    "limit-raised": (
        "native(libc.function(b'setrlimit'), 9, here(q(-1, -1)))\n"
        "x = bytearray(2 * 10**9)\nprint(won)",
        False,
    ),
    "alarm-of-clock": ("native(libc.function(b'signal'), 24, 1)\nwhile True:\n    pass", False),
    "jump-nowhere": ("native(1)", False),
    "scribble": ("memory[id(int):id(int) + 200] = bytes(200)\n1 + 1", False),
}

RUNS_HERE = sys.implementation.name == "cpython" and sys.platform == "linux"
ATTACKS = [
    Attack(f"native-{name}", MADE_UP + text, works_bare=bare and RUNS_HERE)
    for name, (text, bare) in CALLS.items()
]
