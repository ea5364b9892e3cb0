"""The cells of the grid: what each changes in params.yaml, and what its experiment is called."""

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.params.schema import PARAMS_FILE
from stages.plumbing.errors import StageError
from stages.plumbing.yaml import parse_yaml

AXES = ("model", "method", "regime")
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
    def words(self) -> list[str]:
        """The same, as options of DVC."""
        return [word for override in self.overrides for word in ("-S", override)]

    @property
    def name(self) -> str:
        """`gpt2-dynamic-100`; settings follow, but those of `runtime`: `gpt2-dynamic-100-protocol-paper`.

        A file of that name and a little more must be possible: the end of a long one becomes its hash.
        """
        settings = [each.replace("=", "-") for each in self.settings if not each.startswith("runtime.")]
        words = [self.model, self.method, f"{self.regime:g}", *settings]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words)).replace("..", ".").strip("-.")
        if len(name) <= LONGEST_NAME:
            return name
        mark = hashlib.sha256(name.encode()).hexdigest()[:8]
        return f"{name[: LONGEST_NAME - len(mark) - 1].rstrip('-.')}-{mark}"

    def applied(self, params: dict[str, Any]) -> dict[str, Any]:
        """The content of params.yaml with the settings of this configuration.

        Raises:
            StageError: a setting is no `key=value`, or params.yaml has no such key.
        """
        params = copy.deepcopy(params)
        for override in self.overrides:
            key, equals, text = override.partition("=")
            *tables, last = key.split(".")
            table: Any = params
            for name in tables:
                table = table.get(name) if isinstance(table, dict) else None
            if not equals or not isinstance(table, dict) or last not in table:
                found = f"{PARAMS_FILE} has no such key" if equals else "not of the form key=value"
                raise StageError(f"-S {override}", found, "for example -S protocol=paper")
            # As DVC does: it keeps a line break, which YAML would take for a space, and adds one table to another.
            value = parse_yaml(text.replace("\n", "\\n"), override)
            both = isinstance(value, dict) and isinstance(table[last], dict)
            table[last] = {**table[last], **value} if both else value
        return params


def wanted(
    models: Sequence[str] | None,
    methods: Sequence[str] | None,
    regimes: Sequence[float] | None,
    settings: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Configuration]:
    """Every combination of models, methods, regimes (None: the paper's) and seeds, with the same `key=value` settings.

    seeds: none for that of params.yaml, which then is in no name.

    Raises:
        StageError: a `key=value` is about one of the grid's axes.
    """
    for setting in settings:
        if setting.split("=")[0] in (*AXES, *(["seed"] if seeds else [])):
            remedy = "use --models, --methods, --regimes and --seeds"
            raise StageError(f"-S {setting}", "set by the grid itself", remedy)
    seeded = [(f"seed={seed}",) for seed in dict.fromkeys(seeds)]
    return [
        Configuration(model, method, regime, (*settings, *seed))
        for seed in seeded or ((),)
        for model in dict.fromkeys(models or MODELS)
        for method in dict.fromkeys(methods or METHODS)
        for regime in dict.fromkeys(regimes or REGIMES)
    ]
