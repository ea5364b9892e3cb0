"""A Ray cluster of three nodes on loopback, each with a fake GPU, a token at the door and folders of its own."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.stage_runs import wait_for

RAY = Path(sys.executable).parent / "ray"
NODES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")  # 127.0.0.1 would become the machine's own address
STORE = 80_000_000  # bytes of each node's object store


def free_port() -> int:
    with socket.socket() as found:
        found.bind((NODES[0], 0))
        port: int = found.getsockname()[1]
        return port


class Cluster:
    """Three nodes; each can be killed alone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"{NODES[0]}:{self.port}"
        token = folder / "token"
        token.write_text(secrets.token_hex(32), encoding="ascii")
        token.chmod(0o600)
        self.variables = {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "10",  # a dead node, sooner
            "RAY_raylet_start_wait_time_s": "180", "RAY_worker_register_timeout_seconds": "300",  # a busy machine
        }  # fmt: skip

    def start(self, *numbers: int) -> None:
        """Start nodes, the head (0) first, the others together."""
        for together in ([each for each in numbers if each == 0], [each for each in numbers if each]):
            for process in [self._start(number) for number in together]:
                printed, _ = process.communicate()
                assert process.returncode == 0, printed

    def _start(self, number: int) -> subprocess.Popen[str]:
        folder = self.folder / str(number)
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        head = [f"--port={self.port}", "--head", "--include-dashboard=false"]
        command = [
            str(RAY), "start", *([f"--address={self.address}"] if number else head),
            f"--node-ip-address={NODES[number]}", f"--temp-dir={folder}/ray", "--num-cpus=1", "--num-gpus=1",
            f"--object-store-memory={STORE}", "--disable-usage-stats", "--include-log-monitor=true",
        ]  # fmt: skip
        environment = {**os.environ, **self.variables, "TMPDIR": str(folder / "tmp")}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=environment, **pipes)

    def processes(self, number: int) -> list[psutil.Process]:
        """All that runs for a node: what names its folder, and what that has started."""
        mark = f"{self.folder}/{number}/"
        found: set[psutil.Process] = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(mark in word for word in process.cmdline()):
                    found |= {process, *process.children(recursive=True)}
        return list(found)

    def workers(self, *numbers: int) -> list[psutil.Process]:
        """The processes in which trials are at work, of some nodes or of all."""
        found = []
        for process in (each for number in numbers or range(len(NODES)) for each in self.processes(number)):
            with suppress(psutil.Error):
                if process.cmdline()[:1] == ["ray::train_there"]:
                    found.append(process)
        return found

    def kill(self, *numbers: int) -> None:
        """SIGKILL to all of some nodes at once."""
        processes = {process for number in numbers for process in self.processes(number)}
        for process in processes:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(map(_runs, processes)))


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
