"""Clones, in which experiments run beside the user's workspace.

A clone is a clone of the repository that shares its Git objects and DVC's cache, and nothing else: no lock, no
workspace and no half-made experiment of one clone can be seen from another, or from the project. An experiment becomes
one of the project's when it is whole, by one `git fetch` of its ref.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from stages.grid.configurations import Configuration
from stages.grid.experiments import dvc, dvc_command, experiment_ref, git
from stages.plumbing.files import STATE_VARIABLE


def make_clones(root: Path, folder: Path, count: int, baseline: str, state: Path) -> list["Clone"]:
    """Make `count` clones below `folder`, at the commit `baseline`; what an earlier run left there is removed.

    Args:
        root: the project.
        folder: the place of the clones.
        count: how many.
        baseline: the commit (hex) that experiments start from.
        state: the folder of the training state, shared by all clones: a training that was stopped in one goes on in
            another.
    """
    shutil.rmtree(folder, ignore_errors=True)
    clones = [Clone(root, folder / str(number), baseline, state) for number in range(count)]
    local = Path(".dvc") / "config.local"
    first, *others = [clone.folder / local for clone in clones]
    if (root / local).is_file():  # the user's remotes and their passwords
        shutil.copy(root / local, first)
    dvc(first.parent, "config", "--local", "cache.dir", dvc(root, "cache", "dir"))
    # A base model is hundreds of megabytes: the clones get links to the one in the cache, not copies.
    dvc(first.parent, "config", "--local", "cache.type", "reflink,hardlink,copy")
    for other in others:
        shutil.copy(first, other)
    return clones


class Clone:
    """A place where one command runs at a time, beside the project and its other clones."""

    def __init__(self, root: Path, folder: Path, baseline: str, state: Path) -> None:
        self.root, self.folder, self.baseline, self.state = root, folder, baseline, state
        git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
        git(folder, "checkout", "--quiet", "--detach", baseline)

    def start(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        """Start a DVC command in the clone as it was cloned; all that it prints is added to `log`."""
        git(self.folder, "reset", "--quiet", "--hard")
        git(self.folder, "clean", "--quiet", "--force", "-d")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        environment = {**os.environ, "PATH": path, STATE_VARIABLE: str(self.state)}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            return subprocess.Popen(
                dvc_command(*words),
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def start_experiment(self, configuration: Configuration, log: Path) -> subprocess.Popen[bytes]:
        """Start `dvc exp run` of a configuration."""
        settings = [word for override in configuration.overrides for word in ("-S", override)]
        return self.start(log, "exp", "run", "--name", configuration.name, *settings)

    def start_shared_stages(self, configuration: Configuration, log: Path) -> subprocess.Popen[bytes]:
        """Start the stages that configurations share, up to `subset`; its outputs are in DVC's cache afterwards."""
        settings = [word for override in configuration.overrides for word in ("-S", override)]
        return self.start(log, "exp", "run", *settings, "subset")

    def publish(self, configuration: Configuration) -> None:
        """Make a finished experiment of this clone one of the project's."""
        ref = experiment_ref(self.baseline, configuration.name)
        git(self.root, "fetch", "--quiet", str(self.folder), f"+{ref}:{ref}")
