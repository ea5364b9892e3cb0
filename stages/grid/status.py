"""What the experiments of a grid have cost so far, on disk, and what the rest will cost."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stages.grid.configurations import Configuration
from stages.plumbing.files import write_json


@dataclass(frozen=True)
class Entry:
    """One experiment: seconds of work so far, over all attempts."""

    model: str
    method: str
    regime: float
    seconds: float = 0.0
    state: str = "waiting"  # waiting | running | done | failed
    baseline: str = ""  # the commit that `state` is about
    note: str = ""  # why it failed
    at_once: int = 1  # experiments at a time in the grid that was last asked for it
    settings: Sequence[str] = ()  # what else than model, method and regime it changes in params.yaml

    @property
    def configuration(self) -> Configuration:
        """What the entry is about."""
        return Configuration(self.model, self.method, self.regime, tuple(self.settings))

    def is_like(self, other: "Entry", *fields: str) -> bool:
        """Whether both have the same values in `fields`."""
        return all(getattr(self, field) == getattr(other, field) for field in fields)


class Status:
    """The entries by name; every change is written at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        try:
            self.entries = {name: Entry(**entry) for name, entry in json.loads(path.read_bytes()).items()}
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, AttributeError):
            print(f"{path}: not readable, so the times of earlier runs are forgotten")

    def of(self, configuration: Configuration) -> Entry:
        """The entry of a configuration, a new one if there is none."""
        new = Entry(configuration.model, configuration.method, configuration.regime, settings=configuration.settings)
        return self.entries.get(configuration.name, new)

    def note(self, *configurations: Configuration, **changes: object) -> None:
        """Change their entries."""
        for each in configurations:
            self.entries[each.name] = replace(self.of(each), **changes)  # type: ignore[arg-type]
        write_json(self.path, {name: asdict(entry) for name, entry in sorted(self.entries.items())})

    def at_once(self, configurations: Iterable[Configuration]) -> int:
        """How many experiments at a time the grid runs, or ran, that was asked for these."""
        return max((self.of(each).at_once for each in configurations), default=1)

    def seconds_left(self, unfinished: Iterable[Configuration], jobs: int) -> float | None:
        """About how long the unfinished configurations take, `jobs` at a time; None before the first has ended.

        Work grows with the training data: each is judged by the seconds per percent of the finished ones that are
        most like it (same model and method, same method, any).
        """
        done = [entry for entry in self.entries.values() if entry.state == "done" and entry.seconds]
        left = []
        for entry in map(self.of, unfinished):
            rate = _seconds_per_percent(entry, done)
            if rate is None:
                return None
            left.append(max(rate * entry.regime - entry.seconds, 0.0))
        return max(sum(left) / jobs, max(left, default=0.0))


def _seconds_per_percent(entry: Entry, done: Sequence[Entry]) -> float | None:
    for fields in (("model", "method"), ("method",), ()):
        like = [other for other in done if other.is_like(entry, *fields)]
        if like:
            return sum(other.seconds for other in like) / sum(other.regime for other in like)
    return None
