"""Reads and writes of files, /proc and the environment; loaders that read them for us."""

from tests.sandbox.attacks.program import Attack

# name: (text, works without a sandbox)
READS = {
    "open": ("print(open('@SECRET@').read())", True),
    "os-open": ("import os\nprint(os.read(os.open('@SECRET@', 0), 99))", True),
    "fileio": ("import io\nprint(io.FileIO('@SECRET@').read())", True),
    "pathlib": ("import pathlib\nprint(pathlib.Path('@SECRET@').read_text())", True),
    "linecache": ("import linecache\nprint(linecache.getlines('@SECRET@'))", True),
    "codecs": ("import codecs\nprint(codecs.open('@SECRET@').read())", True),
    "fileinput": ("import fileinput\nprint(*fileinput.input('@SECRET@'))", True),
    "loader": (
        "import fractions\nprint(fractions.__loader__.get_data('@SECRET@'))",
        True,
    ),
    "loader-of-type": (
        "import importlib.machinery as m\n"
        "print(m.SourceFileLoader('a', '@SECRET@').get_data('@SECRET@'))",
        True,
    ),
    "mmap": (
        "import mmap, os\nprint(mmap.mmap(os.open('@SECRET@', 0), 0, prot=1)[:])",
        True,
    ),
    "symlink": (
        "import os\nos.symlink('@SECRET@', '@CANARY@/l')\nprint(open('@CANARY@/l').read())",
        True,
    ),
    "hard-link": (
        "import os\nos.link('@SECRET@', '@CANARY@/l')\nprint(open('@CANARY@/l').read())",
        True,
    ),
    "proc-root": ("print(open('/proc/self/root@SECRET@').read())", True),
    "proc-cwd": (
        "import os\nos.chdir('/')\nprint(open('/proc/self/cwd@SECRET@').read())",
        True,
    ),
    "directory-descriptor": (
        "import os\nd = os.open('/', os.O_PATH)\n"
        "print(os.read(os.open('@SECRET@'[1:], 0, dir_fd=d), 99))",
        True,
    ),
    "sendfile": ("import os\nos.sendfile(1, os.open('@SECRET@', 0), 0, 99)", False),
    "preadv-every-descriptor": (
        r"""
import os
for fd in range(3, 1024):
    try:
        print(os.pread(fd, 4096, 0))
    except OSError:
        pass
""",
        False,
    ),
    "stdin": ("import os\nprint(os.pread(0, 4096, 0), input())", False),
    "import-as-source": (
        "import fractions\ns = fractions.sys\ns.path.insert(0, '@CANARY@')\n"
        "import runpy\nprint(open('@SECRET@').read())\nrunpy.run_path('@SECRET@')",
        True,
    ),
    "syntax-error-shows-line": (
        "import fractions\ni = fractions.sys.modules['builtins'].__import__\n"
        "m = i('importlib.machinery').machinery.SourceFileLoader('a', '@SECRET@')\n"
        "try:\n    m.load_module()\nexcept NameError as e:\n    print(e)",
        True,
    ),
    "metadata": (
        "import os\nif os.stat('@SECRET@').st_size:\n    print('@NOW@'[::-1])",
        True,
    ),
    "listing": ("import os\nif os.listdir('/'):\n    print('@NOW@'[::-1])", True),
    "exists-by-error": (
        r"""
import os
def kind(path):
    try:
        os.close(os.open(path, os.O_RDONLY))
        return "opened"
    except OSError as e:
        return e.errno
if kind("@SECRET@") != kind("@SECRET@" + "-not-there"):
    print("@NOW@"[::-1])
""",
        True,
    ),
    "passwd": ("if 'root' in open('/etc/passwd').read():\n    print('@NOW@'[::-1])", True),
    "environment": ("import os\nprint(os.environ, os.getenv('GOLD'))", True),
    "environment-of-other": ("print(open('/proc/@VICTIM@/environ').read())", True),
    "environment-of-parents": (
        "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())\n"
        "print(open('/proc/@HOST@/environ').read())",
        False,
    ),
    "environment-own-proc": ("print(open('/proc/self/environ').read())", True),
    "command-lines": (
        "import os\nfor p in os.listdir('/proc'):\n    if p.isdigit():\n"
        "        print('@NOW@'[::-1], open(f'/proc/{p}/cmdline').read()[:99])",
        False,
    ),
    "descriptor-links-of-host": (
        r"""
import os
for p in ("@HOST@", str(os.getppid()), "@VICTIM@"):
    for fd in range(64):
        try:
            print(open(f"/proc/{p}/fd/{fd}", "rb").read1(4096))
        except (OSError, ValueError):
            pass
""",
        False,
    ),
}

WRITES = {
    "open": ("open('@CANARY@/a', 'w')", True),
    "mkdir": ("import os\nos.mkdir('@CANARY@/a')", True),
    "symlink": ("import os\nos.symlink('/etc/passwd', '@CANARY@/a')", True),
    "hard-link": ("import os\nos.link('@TARGET@', '@CANARY@/a')", True),
    "fifo": ("import os\nos.mkfifo('@CANARY@/a')", True),
    "device": ("import os\nos.mknod('@CANARY@/a', 0o20666, os.makedev(1, 3))", False),
    "rename": ("import os\nos.rename('@TARGET@', '@CANARY@/a')", True),
    "append": ("open('@TARGET@', 'a').write('x')", True),
    "truncate": ("import os\nos.truncate('@TARGET@', 0)", True),
    "unlink": ("import os\nos.unlink('@TARGET@')", True),
    "chmod": ("import os\nos.chmod('@TARGET@', 0o777)", True),
    "utime": ("import os\nos.utime('@TARGET@', (1, 1))", True),
    "xattr": ("import os\nos.setxattr('@TARGET@', 'user.a', b'x')", False),
    "temporary": (
        "import tempfile\ntempfile.mkdtemp(prefix='@MARK@')",
        True,
    ),
    "temporary-shm": ("open('/dev/shm/@MARK@', 'w')", True),
    "cwd": ("open('@MARK@', 'w')", True),
    "unnamed-then-linked": (
        r"""
import os
fd = os.open("@CANARY@", os.O_TMPFILE | os.O_RDWR, 0o600)
os.link(f"/proc/self/fd/{fd}", "@CANARY@/a", src_dir_fd=os.open("/", 0), follow_symlinks=True)
""",
        True,
    ),
    "shutil": ("import shutil\nshutil.copy('/etc/passwd', '@CANARY@/a')", True),
    "sqlite": ("import sqlite3\nsqlite3.connect('@CANARY@/a').execute('create table a (b)')", True),
    "log": ("import logging\nlogging.basicConfig(filename='@CANARY@/a')", True),
    "zip": ("import zipfile\nzipfile.ZipFile('@CANARY@/a', 'w').close()", True),
    "bind-unix": ("import socket\nsocket.socket(socket.AF_UNIX).bind('@CANARY@/a')", True),
    "decimal-via-print-file": (
        "print('x', file=open('@CANARY@/a', 'w'))",
        True,
    ),
    "trace-module": (
        "import cProfile\ncProfile.run('1+1', '@CANARY@/a')",
        True,
    ),
    "byte-code-cache": (
        "import py_compile\nopen('@CANARY@/a.py', 'w')\npy_compile.compile('@CANARY@/a.py')",
        True,
    ),
    "faulthandler": (
        "import faulthandler\nfaulthandler.enable(open('@CANARY@/a', 'w'))",
        True,
    ),
    "pipe-of-host": (
        r"""
import os
for fd in range(3, 1024):
    try:
        os.write(fd, b"x")
    except OSError:
        pass
""",
        False,
    ),
}

ATTACKS = [
    Attack(f"read-{name}", text, works_bare=bare) for name, (text, bare) in READS.items()
] + [Attack(f"write-{name}", text, works_bare=bare) for name, (text, bare) in WRITES.items()]
