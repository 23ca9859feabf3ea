"""The process that a user's reward function runs in: JSON lines in, JSON lines out.

Started by `custom.py` as `python custom_worker.py module:function`; loads nothing of the project.
With a further argument, --check, it only looks the function up.
"""

import importlib
import json
import os
import sys
import traceback
from typing import Any

TRACEBACK_CHARS = 4000


def main(path: str) -> None:
    """Answers each line of arguments by {"values"} or {"error"}."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What the function prints must not come between the replies; nor may it wait for input.
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    function = None
    for line in requests:
        # A user's code may raise anything; what it was goes to the run, which ends with it.
        try:
            if function is None:
                function = find(path)
            values = function(**json.loads(line))
            reply: dict[str, Any] = {
                "values": [None if value is None else float(value) for value in values]
            }
        except BaseException:  # noqa: BLE001 - it is reported, and ends the run
            reply = {"error": traceback.format_exc()[-TRACEBACK_CHARS:]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def find(path: str) -> Any:
    """The function; raises what its module raises.

    Raises:
        AttributeError: the module has nothing of this name.
        TypeError: what has this name cannot be called.
    """
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not callable(found):
        raise TypeError(f"{name} is {found!r:.60}, which cannot be called")
    return found


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())  # as `python -m` has it
    (find if "--check" in sys.argv else main)(sys.argv[1])
