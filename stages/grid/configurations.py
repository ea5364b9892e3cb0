"""The cells of the grid: what each changes in params.yaml, and what its experiment is called."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stages.params.schema import PARAMS_FILE
from stages.plumbing.errors import StageError, one_line
from stages.plumbing.yaml import parse_yaml

LONGEST_NAME = 200  # characters; file systems take 255
MODELS = ("gpt2", "dialogpt")  # the paper's, as METHODS and REGIMES (Tables 1 and 2)
METHODS = ("fine-tune", "soft", "dynamic")
REGIMES = (10.0, 20.0, 30.0, 50.0, 70.0, 100.0)


@dataclass(frozen=True)
class Configuration:
    """One cell of the grid; `settings` are the other `key=value` that it changes."""

    model: str
    method: str
    regime: float
    settings: tuple[str, ...] = ()

    @property
    def overrides(self) -> list[str]:
        """Every `key=value` for `dvc exp run -S`."""
        return [f"model={self.model}", f"method={self.method}", f"regime={self.regime:g}", *self.settings]

    @property
    def name(self) -> str:
        """`gpt2-dynamic-100`; settings follow, but those of `runtime`: `gpt2-dynamic-100-protocol-paper`.

        It must fit into the name of a file: the end of a long one becomes its hash.
        """
        settings = [each.replace("=", "-") for each in self.settings if not each.startswith("runtime.")]
        words = [self.model, self.method, f"{self.regime:g}", *settings]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words)).replace("..", ".").strip("-.")
        mark = hashlib.sha256(name.encode()).hexdigest()[:8]
        return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9].rstrip('-.')}-{mark}"

    def applied(self, params: str) -> dict[str, Any]:
        """The content of params.yaml, whose text is given, with the settings of this configuration, as DVC makes it.

        Raises:
            StageError: a setting is no `key=value`, or params.yaml has no such key.
        """
        from dvc.exceptions import InvalidArgumentError  # DVC takes a moment to load, for which --help does not wait
        from dvc.utils.hydra import apply_overrides

        with TemporaryDirectory() as folder:
            path = Path(folder, PARAMS_FILE)
            path.write_text(params, encoding="utf-8")
            try:
                apply_overrides(path, self.overrides)
            except InvalidArgumentError as error:
                found = f"no such key, or not of the form key=value ({one_line(str(error.__cause__))})"
                raise StageError(f"-S {' -S '.join(self.settings)}", found, "for example -S protocol=paper") from None
            return parse_yaml(path.read_text(encoding="utf-8"), path)  # type: ignore[no-any-return]


def wanted(
    models: Sequence[str],
    methods: Sequence[str],
    regimes: Sequence[float],
    settings: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Configuration]:
    """Every combination of models, methods, regimes and seeds, with the same `key=value` settings.

    seeds: none for that of params.yaml, which then is in no name.

    Raises:
        StageError: a `key=value` is about one of the grid's axes.
    """
    axes = ("model", "method", "regime", "seed") if seeds else ("model", "method", "regime")
    for setting in settings:
        if setting.split("=")[0] in axes:
            remedy = "use --models, --methods, --regimes and --seeds"
            raise StageError(f"-S {setting}", "set by the grid itself", remedy)
    seeded = [(f"seed={seed}",) for seed in dict.fromkeys(seeds)]
    return [
        Configuration(model, method, regime, (*settings, *seed))
        for seed in seeded or ((),)
        for model in dict.fromkeys(models)
        for method in dict.fromkeys(methods)
        for regime in dict.fromkeys(regimes)
    ]
