"""Secrets in inherited memory, and machine code written into it."""

import platform

from tests.sandbox.attacks.program import Attack

SEARCH = {
    "gc-objects": (
        "import gc\nfor o in gc.get_objects():\n    r = repr(o)[:10**5]\n"
        "    if 'GO' + 'LD-' in r:\n        print(r)",
        False,
    ),
    "gc-main-frames": (
        "import gc, sys\nprint(sys._current_frames())\nfor m in list(sys.modules.values()):\n"
        "    for v in list(vars(m).values()):\n"
        "        if isinstance(v, (str, bytes, dict, list)):\n"
        "            r = repr(v)[:10**5]\n"
        "            if 'GO' + 'LD-' in r:\n                print(r)",
        True,
    ),
    "maps-scan": (
        "import ctypes\nfor line in open('/proc/self/maps'):\n"
        "    a, b = (int(x, 16) for x in line.split()[0].split('-'))\n"
        "    if '[heap]' in line or '[stack]' in line or ' rw-p' in line and b - a < 10**7:\n"
        "        data = ctypes.string_at(a, b - a)\n"
        "        i = data.find(b'GO' + b'LD-')\n"
        "        if i >= 0:\n            print(data[i:i + 37])",
        True,
    ),
    "maps-listed": ("print(open('/proc/self/maps').read()[:200], '@NOW@'[::-1])", True),
    "uninitialised-memory": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.malloc.restype = ctypes.c_void_p\n"
        "for size in (64, 512, 4096, 2**16):\n    for _ in range(200):\n"
        "        data = ctypes.string_at(libc.malloc(size), size)\n"
        "        i = data.find(b'GO' + b'LD-')\n        if i >= 0:\n"
        "            print(data[i:i + 37])",
        False,
    ),
    "interned-strings": (
        "import sys, gc\nfor m in list(sys.modules.values()):\n    for k in list(vars(m)):\n"
        "        if 'GO' + 'LD-' in repr(vars(m)[k])[:10**5]:\n            print(vars(m)[k])\n"
        "print(sys.argv, sys.orig_argv)",
        True,
    ),
    "core-dump": (
        "import resource, os\nresource.setrlimit(resource.RLIMIT_CORE, (10**9, 10**9))\n"
        "os.chdir('@CANARY@')\nos.kill(os.getpid(), 6)",
        False,
    ),
}

# mmap, write machine code, jump into it. mov eax,42; ret
MACHINE_CODE = r"""
import ctypes, mmap
m = mmap.mmap(-1, 4096, prot=7)
m.write(%s)
f = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))
r = f()
if r == %s:
    print("@NOW@"[::-1])
"""
GETPPID_BY_INT80 = r"b'\xb8\x40\x00\x00\x00\xcd\x80\xc3'"  # mov eax,64; int 0x80; ret
GETPPID_BY_X32 = r"b'\xb8\x6e\x00\x00\x40\x0f\x05\xc3'"  # mov eax,0x4000006e; syscall; ret

ATTACKS = [
    Attack(f"memory-{name}", text, works_bare=bare) for name, (text, bare) in SEARCH.items()
] + [
    Attack(
        "code-mapped-executable",
        MACHINE_CODE % (r"b'\xb8\x2a\x00\x00\x00\xc3'", "42"),
        works_bare=platform.machine() == "x86_64",
    ),
    Attack("code-int80", MACHINE_CODE % (GETPPID_BY_INT80, "__import__('os').getppid()")),
    Attack("code-x32", MACHINE_CODE % (GETPPID_BY_X32, "__import__('os').getppid()")),
]
