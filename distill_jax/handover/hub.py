"""Model directories to the Hugging Face hub: what is sent, and where it may be sent."""

import fnmatch
import glob
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import validate_repo_id

from distill_jax.core.errors import CheckpointError, ConfigError, DataError, EndpointError
from distill_jax.handover import card
from distill_jax.models import hf_io, peft_io
from distill_jax.models import safetensor_files as files
from distill_jax.run.geometry import check_model_files

# What a model consists of. Other files stay: stages leave some that hold local paths.
SENT = (
    card.FILE, "LICENSE*", "config.json", "generation_config.json", peft_io.CONFIG,
    "*.safetensors", files.INDEX, "tokenizer*", "vocab.json", "merges.txt", "added_tokens.json",
    "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip
# An earlier version's would be loaded with, or instead of, the new ones: its weights, but also the
# settings of an adapter where a merged model follows.
REPLACED = tuple(name for name in SENT if name not in (card.FILE, "LICENSE*"))
_TOKEN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"
_FAILURES = (hub_errors.HTTPError, OSError)


class Contents(NamedTuple):
    """Files of a directory: (name, bytes) of those that are sent, names of the others."""

    sent: list[tuple[str, int]]
    kept: list[str]

    @property
    def bytes(self) -> int:
        """Of all files that are sent."""
        return sum(size for _, size in self.sent)


def contents(directory: Path) -> Contents:
    """What `publish` sends of a directory.

    Raises:
        CheckpointError: no model or adapter that can be loaded from it.
        DataError: no model card; an adapter whose base model nobody else has.
    """
    if not directory.is_dir():
        raise CheckpointError(f"no directory {directory}")
    if (directory / peft_io.CONFIG).is_file():
        _check_adapter(directory)
    else:
        check_model_files(directory)
    if not (directory / card.FILE).is_file():
        fix = "write the directory with launch.export_model, or write a card"
        raise DataError(f"no {card.FILE} in {directory}", wanted="a model card", fix=fix)
    found = sorted(directory.iterdir())
    sent = [path for path in found if path.is_file() and _is_sent(path.name)]
    kept = [path.name for path in found if path not in sent]
    return Contents([(path.name, path.stat().st_size) for path in sent], kept)


def check_repository(name: str) -> None:
    """Raises ConfigError where a name is not OWNER/NAME."""
    try:
        validate_repo_id(name)
    except hub_errors.HFValidationError as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"REPO={name!r}: {said}", wanted="OWNER/NAME") from error
    if name.count("/") != 1:
        raise ConfigError(f"REPO={name!r}", wanted="OWNER/NAME")


def publish(api: Any, directory: Path, repository: str, *, public: bool = False) -> str:
    """Sends a model in one commit, which replaces the weights of an earlier one; returns its URL.

    Args:
        api: a `huggingface_hub.HfApi`.
        directory: of a model or adapter with a model card.
        repository: OWNER/NAME; made, private unless `public`, where there is none.
        public: whether everybody may read it; an existing repository must be what is asked for.

    Raises:
        CheckpointError, DataError, ConfigError: see `contents` and `check_repository`; an existing
            repository of the other visibility.
        EndpointError: the hub refuses or cannot be reached.
    """
    check_repository(repository)
    found = contents(directory)
    try:
        private = _is_private(api, repository)
        if private is None:
            api.create_repo(repository, private=not public, exist_ok=False)
        elif private == public:
            got = f"{repository} exists and is {'private' if private else 'public'}"
            fix = "name another, change its visibility on the hub, or "
            fix += "drop --public" if public else "give --public"
            raise ConfigError(got, wanted="public" if public else "private", fix=fix)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=str(directory),
            allow_patterns=[glob.escape(name) for name, _ in found.sent],
            delete_patterns=list(REPLACED),
            commit_message=f"{directory.absolute().name}, by distill_jax",
        )
    except hub_errors.OfflineModeIsEnabled as error:
        raise EndpointError("HF_HUB_OFFLINE is set", fix="unset it to publish") from error
    except _FAILURES as error:
        said = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise EndpointError(
            f"the hub did not take {repository}: {said}", fix=_fix(error)
        ) from error
    return str(commit.commit_url)


def _fix(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    # The hub hides from strangers that a repository exists.
    if status in (401, 403, 404) or isinstance(error, hub_errors.LocalTokenNotFoundError):
        return _TOKEN
    if status is None:
        return "look at the network and the disk; the same command tries again"
    passing = status in (408, 429) or status >= 500
    return "the same command tries again" if passing else "mend what the hub names"


def _is_private(api: Any, repository: str) -> bool | None:
    """Whether an existing repository is private; None where there is none that we may see."""
    try:
        return bool(api.repo_info(repository).private)
    except hub_errors.RepositoryNotFoundError:
        return None


def _is_sent(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in SENT)


def _check_adapter(directory: Path) -> None:
    base = files.read_json(directory / peft_io.CONFIG).get("base_model_name_or_path")
    with files.TensorReader([directory / peft_io.WEIGHTS]):
        pass  # raises where it is missing or damaged
    if not isinstance(base, str) or not hf_io.is_hub_id(base):
        raise DataError(
            f"the base model of the adapter is {base!r}",
            wanted="a hub id: others have no such directory",
            fix="publish a merged model, or correct base_model_name_or_path in "
            f"{directory / peft_io.CONFIG}",
        )
