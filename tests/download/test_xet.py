"""Xet, the storage of the hub's large files: the real hf_xet asks a storage on loopback, and everything goes wrong."""

import signal
import time
from pathlib import Path

import pytest

from tests.helpers_data import sha256
from tests.hub_project import Project
from tests.hub_server import XET_RECONSTRUCTION, XET_TOKEN, XET_XORB, Fault

WEIGHTS = "model.safetensors"
PAUSE = "HF_XET_CLIENT_RETRY_BASE_DELAY"  # of hf_xet between attempts; its own 3 seconds are too long here


@pytest.fixture(autouse=True)
def in_xet(project: Project, weights: Path) -> None:
    """gpt2, with its weights in Xet; a time limit that a busy machine keeps to."""
    project.serve_gpt2(weights)
    project.hub.xet = True
    project.variables |= {"HF_HUB_DOWNLOAD_TIMEOUT": "20", PAUSE: "10ms"}


def requests(project: Project, part: str) -> int:
    return sum(part in path for method, path in project.hub.requests if method == "GET")


def weights_arrived(project: Project, weights: Path) -> bool:
    return (project.folder / "data/model" / WEIGHTS).read_bytes() == (weights / WEIGHTS).read_bytes()


def test_weights_come_through_xet(project: Project, weights: Path) -> None:
    done = project.download()
    assert done.returncode == 0, done.stderr
    assert weights_arrived(project, weights)
    assert requests(project, "/xet/xorbs/") > 1
    assert requests(project, "/storage/") == 0
    assert "without Xet" not in done.stderr


def test_a_damaged_file_in_the_cache_that_repositories_share_is_replaced(project: Project, weights: Path) -> None:
    project.succeeds()
    (shared,) = {path.resolve() for path in (project.folder / "home").rglob(WEIGHTS)}
    assert shared.name != sha256((weights / WEIGHTS).read_bytes())  # Xet's own hash
    shared.chmod(0o644)
    shared.write_bytes((weights / WEIGHTS).read_bytes()[:-1] + b"x")
    project.succeeds()
    assert weights_arrived(project, weights)


def test_the_token_of_the_user_does_not_go_to_the_storage(project: Project) -> None:
    done = project.download(HF_TOKEN="hf_abcdefghijklmnop")
    assert done.returncode == 0, done.stderr
    assert set(project.hub.storage_tokens) == {"Bearer of-xet", None}  # the second: the chunks' addresses are signed


def test_a_slow_storage_is_not_taken_for_one_that_stands_still(project: Project, weights: Path) -> None:
    project.hub.faults[XET_XORB] = Fault("slow")
    done = project.download(HF_HUB_DOWNLOAD_TIMEOUT="2", HF_XET_FIXED_DOWNLOAD_CONCURRENCY="1")
    assert done.returncode == 0, done.stderr
    assert weights_arrived(project, weights)
    assert requests(project, "/storage/") == 0


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        (XET_TOKEN, "500", "500 Internal Server Error"),
        (XET_RECONSTRUCTION, "500", "500 Internal Server Error"),
        (XET_XORB, "500", "500 Internal Server Error"),
        (XET_XORB, "truncate", "error decoding response body"),
        (XET_TOKEN, "stall", "nothing arrived for 2 s"),
        (XET_RECONSTRUCTION, "stall", "nothing arrived for 2 s"),
        (XET_XORB, "stall", "nothing arrived for 2 s"),
    ],
)
def test_where_xet_fails_the_file_comes_without_it(
    project: Project, weights: Path, fault: str, kind: str, reason: str
) -> None:
    project.hub.faults[fault] = Fault(kind)
    began = time.monotonic()
    done = project.download(**({"HF_HUB_DOWNLOAD_TIMEOUT": "2"} if kind == "stall" else {}))
    assert done.returncode == 0, done.stderr
    assert weights_arrived(project, weights)
    assert time.monotonic() - began < 60
    (line,) = (line for line in done.stderr.splitlines() if "Xet storage failed" in line)
    assert "models.gpt2.files.model.safetensors: Xet storage failed (" in line
    assert reason in line
    assert line.endswith("trying once more without Xet")


def test_a_storage_that_cannot_be_reached_costs_seconds(project: Project, weights: Path) -> None:
    project.hub.xet_storage = "http://127.0.0.1:9"
    del project.variables[PAUSE]
    began = time.monotonic()
    done = project.download(HF_HUB_DOWNLOAD_TIMEOUT="4")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 60  # it was three minutes
    assert weights_arrived(project, weights)
    assert "Xet storage failed" in done.stderr


def test_a_hub_that_gives_no_token_is_asked_once(project: Project) -> None:
    project.hub.faults[XET_TOKEN] = Fault("stall")
    done = project.download(HF_HUB_DOWNLOAD_TIMEOUT="2")
    assert done.returncode == 0, done.stderr
    assert requests(project, "/xet-read-token/") == 1


@pytest.mark.parametrize(
    ("fault", "stall"), [(XET_TOKEN, True), (XET_RECONSTRUCTION, True), (XET_RECONSTRUCTION, False)]
)
def test_where_the_hub_fails_without_xet_too_the_key_and_the_way_out_are_said(
    project: Project, fault: str, stall: bool
) -> None:
    project.hub.faults[fault] = Fault("stall" if stall else "500")
    project.hub.faults[WEIGHTS] = Fault("500", "GET")
    line = project.fails(HF_HUB_DOWNLOAD_TIMEOUT="2" if stall else "20")
    assert line.startswith(f"ERROR download: models.gpt2.files.{WEIGHTS}: downloading {WEIGHTS} failed with Xet (")
    assert ("nothing arrived for 2 s" if stall else "500 Internal Server Error") in line
    assert " and without (HTTP 500); set HF_HUB_DISABLE_XET=1 to leave Xet out, or " in line
    assert "file:FOLDER" in line
    assert requests(project, "/v1/reconstructions/") <= 3  # of one attempt


def test_xet_is_left_out_if_the_user_says_so(project: Project, weights: Path) -> None:
    project.hub.faults[XET_TOKEN] = Fault("500")
    done = project.download(HF_HUB_DISABLE_XET="1")
    assert done.returncode == 0, done.stderr
    assert weights_arrived(project, weights)
    assert requests(project, "xet") == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_xet_is_waited_for_stops_at_once(project: Project, number: int, code: int) -> None:
    project.hub.faults[XET_XORB] = Fault("stall")
    ended, stderr = project.signalled(number, "/xet/xorbs/")
    assert ended == code, stderr
    assert stderr.rstrip().endswith("stopped by a signal: finished work is kept; run it again to go on")
    assert list((project.folder / "data").iterdir()) == []
