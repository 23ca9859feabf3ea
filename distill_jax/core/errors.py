"""The project's errors: each says what was got, what was wanted and what to do."""

import functools

# What a shell reports for a program ended by Ctrl-C: what follows it in `a && b` must not run.
EXIT_INTERRUPTED = 130


class DistillError(Exception):
    """Base of every error raised on purpose by distill_jax.

    Args:
        message: what was got.
        wanted: what would have been right, if that is not plain from the message.
        fix: what the reader can do now.
    """

    def __init__(self, message: str, *, wanted: str = "", fix: str = ""):
        self.message, self.wanted, self.fix = message, wanted, fix
        parts = (message, wanted and f"wanted: {wanted}", fix and f"fix: {fix}")
        super().__init__("; ".join(filter(None, parts)))

    def __reduce__(self):
        # Exceptions pickle by args alone; keyword fields must survive worker processes.
        return functools.partial(type(self), wanted=self.wanted, fix=self.fix), (self.message,)


class ConfigError(DistillError, ValueError):
    """A setting is unknown, of the wrong type or impossible."""


class DataError(DistillError, ValueError):
    """A data source or one of its rows cannot be used."""


class TokenizerMismatchError(DistillError, ValueError):
    """Teacher and student do not share one token set."""


class CheckpointError(DistillError, ValueError):
    """A checkpoint or model directory is missing, damaged or of another architecture."""


class MeshError(DistillError, ValueError):
    """Devices, mesh axes and batch do not fit each other."""


class NonFiniteError(DistillError, FloatingPointError):
    """Too many updates in a row had a loss or gradient that was not finite."""


class RewardError(DistillError, RuntimeError):
    """A user's reward function failed or was late."""


class RewardHackingError(DistillError, RuntimeError):
    """A policy satisfies its reward model and not its task."""


class BusyError(DistillError, RuntimeError):
    """Another process writes to the directory or file."""

    exit_code = 1


class EndpointError(DistillError, RuntimeError):
    """An endpoint refuses, fails, or the budget for it is spent; what was bought is kept."""

    exit_code = 1


class DiskFullError(DistillError, RuntimeError):
    """No space is left where the run writes."""

    exit_code = 1


class MissingExtraError(DistillError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""
