"""Frames between host and workers: a length, then a JSON list of texts."""

import json
import os
import struct

READY = "ready"
LENGTH = struct.Struct("<I")


def read_exactly(descriptor: int, count: int) -> bytes:
    """So many bytes; fewer at the end of the stream."""
    found = b""
    while len(found) < count:
        piece = os.read(descriptor, count - len(found))
        if not piece:
            break
        found += piece
    return found


def read_frame(descriptor: int) -> list[str] | None:
    """The next frame, or None at the end."""
    head = read_exactly(descriptor, LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    body = read_exactly(descriptor, LENGTH.unpack(head)[0])
    return json.loads(body)


def frame(*texts: str) -> bytes:
    """A frame as bytes; small ones are written in one piece."""
    body = json.dumps(texts).encode()
    return LENGTH.pack(len(body)) + body
