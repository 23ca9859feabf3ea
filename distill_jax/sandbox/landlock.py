"""Landlock: no file, no TCP, no abstract socket and no signal outside, where the kernel knows it.

A second lock behind the filter, for calls that the filter would let through by mistake.
Source: Linux, Documentation/userspace-api/landlock.rst.
"""

import ctypes
import os
import struct

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on every architecture
_VERSION = 1  # flag of create_ruleset: ask, create nothing

# Access rights of files that each ABI knows: 13 at first, then REFER, TRUNCATE, IOCTL_DEV.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP = 0b11  # BIND, CONNECT: from ABI 4
_SCOPED = 0b11  # abstract unix sockets, signals: from ABI 6


def abi(libc: ctypes.CDLL) -> int:
    """The kernel's version of Landlock, 0 where it has none or has it switched off."""
    found = libc.syscall(
        ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION)
    )
    return max(int(found), 0)


def ruleset(version: int) -> bytes:
    """struct landlock_ruleset_attr that handles all that `version` knows, thus denies it."""
    attributes = [(1 << _FILE_RIGHTS[min(version, 5)]) - 1]
    if version >= 4:
        attributes.append(_TCP)
    if version >= 6:
        attributes.append(_SCOPED)
    return struct.pack(f"={len(attributes)}Q", *attributes)


def restrict(libc: ctypes.CDLL, attributes: bytes) -> None:
    """Denies this process, for good, all that the ruleset handles.

    Needs no_new_privs.

    Raises:
        OSError: the kernel refused.
    """
    fd = libc.syscall(
        ctypes.c_long(_CREATE_RULESET),
        attributes,
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint(0),
    )
    if fd < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    try:
        if libc.syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(fd), ctypes.c_uint(0)):
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(fd)
