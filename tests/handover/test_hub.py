"""Publishing to a hub that is an object: nothing here asks a network."""

import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import HfApi
from huggingface_hub import errors as hub_errors

from distill_jax.core.errors import CheckpointError, ConfigError, DataError, EndpointError
from distill_jax.handover import hub
from distill_jax.models import hf_io, peft_io
from distill_jax.models import safetensor_files as files
from launch import publish
from tests.stages.hf import write_model

REPO = "me/student"


class FakeHub:
    """Has what `publish` uses of an HfApi; private: of the repository, None for no repository."""

    def __init__(self, private: bool | None = None, error: Exception | None = None):
        self.private, self.error = private, error
        self.made: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []

    def repo_info(self, repo_id: str) -> Any:
        assert repo_id == REPO
        if self.error is not None:
            raise self.error
        if self.private is None:
            raise hub_errors.RepositoryNotFoundError("404", response=_Response(404))
        return SimpleNamespace(private=self.private)

    def create_repo(self, repo_id: str, **how: Any) -> None:
        self.made.append({"repo_id": repo_id, **how})

    def upload_folder(self, **how: Any) -> Any:
        self.sent.append(how)
        return SimpleNamespace(commit_url=f"https://hub/{how['repo_id']}/commit/1")


class _Response:
    """As much of a response as an error of the hub reads."""

    headers: dict[str, str] = {}
    request = None

    def __init__(self, status_code: int):
        self.status_code = status_code


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a test asks the network")

    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = write_model(tmp_path_factory.mktemp("hub") / "student", rows=320)
    (out / "README.md").write_text("---\ntags: [x]\n---\n# A model\n")
    (out / "training_config.json").write_text('{"path": "/home/me"}')
    (out / ".secret.safetensors.part").write_text("")
    (out / "checkpoints").mkdir()
    return out


@pytest.fixture
def model(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "student")


def test_a_new_repository_is_private(model: Path) -> None:
    api = FakeHub()
    assert hub.publish(api, model, REPO) == f"https://hub/{REPO}/commit/1"
    assert api.made == [{"repo_id": REPO, "private": True, "exist_ok": False}]
    (sent,) = api.sent
    assert sent["folder_path"] == str(model) and sent["repo_id"] == REPO
    assert set(sent["allow_patterns"]) == {
        "README.md", "chat_template.jinja", "config.json", "generation_config.json",
        "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    } & {path.name for path in model.iterdir()}  # fmt: skip
    assert {"README.md", "config.json", "model.safetensors"} <= set(sent["allow_patterns"])
    # All that a model consists of: an adapter's settings would be loaded with a merged model.
    assert {"*.safetensors", "adapter_config.json", "chat_template.jinja"} <= set(
        sent["delete_patterns"]
    )
    assert not {"README.md", "LICENSE*"} & set(sent["delete_patterns"])


def test_public_only_when_asked_to(model: Path) -> None:
    api = FakeHub()
    hub.publish(api, model, REPO, public=True)
    assert api.made[0]["private"] is False


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_that_exists_keeps_its_visibility(model: Path, private: bool) -> None:
    api = FakeHub(private)
    hub.publish(api, model, REPO, public=not private)
    assert not api.made and len(api.sent) == 1
    other = FakeHub(private)
    got = f"{REPO} exists and is {'private' if private else 'public'}; wanted: "
    with pytest.raises(ConfigError, match=got):
        hub.publish(other, model, REPO, public=private)
    assert not other.made and not other.sent


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (hub_errors.HfHubHTTPError("401 Client\nx", response=_Response(401)), "401.*fix: log in"),
        (hub_errors.HfHubHTTPError("503 Server", response=_Response(503)), "503.*fix: the same"),
        (hub_errors.HfHubHTTPError("400 Bad", response=_Response(400)), "400.*fix: mend what"),
        (hub_errors.HTTPError("no route to host"), "no route to host; fix: look at the network"),
        (hub_errors.LocalTokenNotFoundError("Token is required"), "required; fix: log in"),
        (hub_errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set; fix: unset it"),
    ],
)
def test_what_the_hub_says_is_one_line(model: Path, error: Exception, said: str) -> None:
    api = FakeHub(error=error)
    with pytest.raises(EndpointError, match=said) as found:
        hub.publish(api, model, REPO)
    assert "\n" not in str(found.value) and not api.made and not api.sent


@pytest.mark.parametrize("name", ["student", "a/b/c", "me/", "/x", "me/a b", "me/-x", ""])
def test_names_of_repositories(model: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="wanted: OWNER/NAME"):
        hub.publish(FakeHub(), model, name)


def test_directories_that_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no directory"):
        hub.contents(tmp_path / "nowhere")
    (model / "README.md").unlink()
    with pytest.raises(DataError, match=r"no README.md in .*launch\.export_model"):
        hub.contents(model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="cut short"):
        hub.contents(model)


def test_an_adapter_needs_a_base_that_others_have(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "README.md").write_text("# An adapter")
    files.write_tensors(adapter / peft_io.WEIGHTS, {"x": np.ones(2, np.float32)})
    config = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path)}
    files.write_json(adapter / peft_io.CONFIG, config)
    with pytest.raises(DataError, match="wanted: a hub id.*publish a merged model"):
        hub.publish(FakeHub(), adapter, REPO)
    config["base_model_name_or_path"] = "Qwen/Qwen2.5-0.5B"
    files.write_json(adapter / peft_io.CONFIG, config)
    api = FakeHub()
    hub.publish(api, adapter, REPO)
    sent = {"README.md", peft_io.CONFIG, peft_io.WEIGHTS}
    assert set(api.sent[0]["allow_patterns"]) == sent
    (adapter / peft_io.WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="no adapter_model.safetensors"):
        hub.contents(adapter)


def test_the_hubs_own_api_takes_these_arguments() -> None:
    """The object above stands for methods that exist."""
    import inspect

    for name, given in (
        ("repo_info", ()),
        ("create_repo", ("private", "exist_ok")),
        (
            "upload_folder",
            ("repo_id", "folder_path", "allow_patterns", "delete_patterns", "commit_message"),
        ),
    ):
        known = inspect.signature(getattr(HfApi, name)).parameters
        assert set(given) <= set(known), name
    assert hf_io.is_hub_id(REPO)


# --- the command ---------------------------------------------------------------------------------


def test_a_dry_run_lists_and_sends_nothing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeHub()
    publish.main([str(model), REPO, "--dry_run"], api)
    shown = capsys.readouterr().out
    assert not api.made and not api.sent
    size = (model / "model.safetensors").stat().st_size
    assert f"{size:,}  model.safetensors" in shown and "would be private" in shown
    assert "not sent: .secret.safetensors.part, checkpoints, training_config.json" in shown
    publish.main([str(model), REPO, "--public", "--dry_run"], api)
    assert "would be public" in capsys.readouterr().out


def test_the_command_sends(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeHub()
    publish.main([str(model), REPO], api)
    assert len(api.sent) == 1 and api.made[0]["private"] is True
    assert capsys.readouterr().out.endswith(f"https://hub/{REPO}/commit/1\n")


def test_errors_are_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offline = FakeHub(error=hub_errors.OfflineModeIsEnabled("x"))
    for arguments, code, said in (
        ([str(model), "x"], 2, "ConfigError: REPO='x'; wanted: OWNER/NAME"),
        ([str(tmp_path / "none"), REPO], 2, "CheckpointError: no directory"),
        ([str(model), REPO], 1, "EndpointError: HF_HUB_OFFLINE is set"),
    ):
        with pytest.raises(SystemExit) as stop:
            publish.main(arguments, offline)
        err = capsys.readouterr().err
        assert stop.value.code == code and said in err and err.count("\n") == 1
