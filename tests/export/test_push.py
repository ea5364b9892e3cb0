"""An export is pushed to the tests' hub and loaded from there."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from stages.export.push import TAG, push
from stages.plumbing.errors import StageError
from stages.plumbing.files import output_folder
from tests.hub_server import LARGE, TOKEN, Fault, HubServer
from tests.stage_runs import contents

NAME = "somebody/small-talk"


@pytest.fixture
def hub(hub_allowed: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        sleep = time.sleep  # huggingface_hub's real waits are too long for a test
        monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
        yield server


def export(folder: Path, *more: str) -> Path:
    """A folder that looks like an export: small files, a large one, a subfolder."""
    with output_folder(folder) as made:
        (made / "README.md").write_text(f"---\nlicense: mit\ntags:\n- {TAG}\n---\n\n# A model\n")
        (made / "model.safetensors").write_bytes(bytes(range(256)) * (LARGE // 128))
        for name in more:
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_text(name)
    return folder


def test_what_is_pushed_comes_back_byte_for_byte_and_is_private(hub: HubServer, tmp_path: Path) -> None:
    folder = export(tmp_path / "export", "controller/config.json")
    assert push(folder, NAME, public=False) == f"{hub.address}/{NAME}"
    back = Path(snapshot_download(NAME, local_dir=tmp_path / "back"))
    sent = {name: value for name, value in contents(folder).items() if name != "export/manifest.json"}
    got = {name.replace("back/", "export/"): value for name, value in contents(back).items() if "/.cache/" not in name}
    assert got == sent and len(sent) == 3
    assert hub.repositories[NAME].private and len(hub.uploads) == 1


def test_a_second_export_replaces_the_first_whole(hub: HubServer, tmp_path: Path) -> None:
    push(export(tmp_path / "first", "controller/config.json"), NAME, public=True)
    push(export(tmp_path / "second", "prompt.safetensors"), NAME, public=True)
    assert set(hub.repositories[NAME].files) == {"README.md", "model.safetensors", "prompt.safetensors"}
    assert not hub.repositories[NAME].private


def test_a_public_repository_gets_nothing_that_was_to_be_private(hub: HubServer, tmp_path: Path) -> None:
    hub.add(NAME, "1" * 40, {"mine": b"older"})
    with pytest.raises(StageError, match="there and public; add --public"):
        push(export(tmp_path / "export"), NAME, public=False)
    assert hub.repositories[NAME].files == {"mine": b"older"}


def test_a_private_repository_is_not_said_to_be_public(hub: HubServer, tmp_path: Path) -> None:
    push(export(tmp_path / "first"), NAME, public=False)
    with pytest.raises(StageError, match="there and private; leave out --public"):
        push(export(tmp_path / "second", "more"), NAME, public=True)
    assert "more" not in hub.repositories[NAME].files and hub.repositories[NAME].private


@pytest.mark.parametrize("others", [{"notes": b"mine"}, {"README.md": b"---\ntags: [gpt2]\n---\nmine", "a": b""}])
def test_a_repository_of_something_else_is_left_alone(hub: HubServer, tmp_path: Path, others: dict[str, bytes]) -> None:
    hub.add(NAME, "1" * 40, others)
    hub.repositories[NAME].private = True
    with pytest.raises(StageError, match=r"it holds \d files that are no export, .* among them; name another"):
        push(export(tmp_path / "export"), NAME, public=False)
    assert hub.repositories[NAME].files == others


def test_without_a_token_nothing_is_asked(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(StageError, match="no token; log in"):
        push(export(tmp_path / "export"), NAME, public=False)
    assert not hub.requests


def test_what_is_no_name_of_a_repository_is_refused_before_anything_is_asked(hub: HubServer, tmp_path: Path) -> None:
    for name in ("small-talk", "../small-talk", "a/b/c", "some body/small-talk", "somebody/"):
        with pytest.raises(StageError, match=r"--push: found .* write OWNER/NAME"):
            push(tmp_path, name, public=False)
    for name in ("me/my--model", "me/x..y", "me/model.git", f"me/{'x' * 100}"):
        with pytest.raises(StageError, match=r"--push: .*; write another name"):
            push(tmp_path, name, public=False)
    assert not hub.requests


def test_a_token_that_is_refused_stands_in_no_message(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_notthisonethough"
    monkeypatch.setenv("HF_TOKEN", secret)
    with pytest.raises(StageError, match=r"refused \(401: the token is not valid\)") as caught:
        push(export(tmp_path / "export"), NAME, public=False)
    assert secret not in str(caught.value)
    assert NAME not in hub.repositories


@pytest.mark.parametrize("place", ["uploads", "commit"])
def test_an_upload_that_breaks_off_leaves_the_repository_as_it_was(hub: HubServer, tmp_path: Path, place: str) -> None:
    fault = Fault("cut", "PUT") if place == "uploads" else Fault("500", "POST")
    hub.faults[place] = fault
    folder = export(tmp_path / "export")
    with pytest.raises(StageError, match="hub: somebody/small-talk: "):
        push(folder, NAME, public=False)
    assert hub.repositories[NAME].files == {}
    del hub.faults[place]
    push(folder, NAME, public=False)
    assert set(hub.repositories[NAME].files) == {"README.md", "model.safetensors"}


def test_a_damaged_export_is_not_pushed(hub: HubServer, tmp_path: Path) -> None:
    folder = export(tmp_path / "export")
    (folder / "README.md").write_text("something else")
    with pytest.raises(StageError, match=r"README\.md"):
        push(folder, NAME, public=False)
    assert not hub.requests
