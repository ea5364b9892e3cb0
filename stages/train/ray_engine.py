"""The units of a training on a Ray cluster: this process submits them, waits, and keeps what has come back.

Ray queues, places and repeats them, and gives each one GPU (or a share, or threads) of its own. A unit that has come
back is on this disk before the next is waited for, so that whatever is killed, it is not trained again:

    <state>/<fingerprint>/units/<first trial>-<last trial>/   trials.json, unit.json, weights.safetensors, manifest.json
"""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stages.language_model.device import Share, library_versions, share_of
from stages.methods.registry import METHODS
from stages.plumbing.cluster import cluster, failure_of
from stages.plumbing.errors import StageError
from stages.plumbing.files import output_folder, state_folder
from stages.plumbing.signals import StopRequest
from stages.plumbing.transport import Failed, send
from stages.train.checkpoint import DAMAGED, TRIALS, WEIGHTS, TrainingState, fingerprint_of, remove_unusable
from stages.train.cost import Cost, together
from stages.train.delivery import Order, Split, Trained, name_of
from stages.train.memory import Numbered
from stages.train.ray_worker import train_unit
from stages.train.search import best_trial, groups_of_trials
from stages.train.store import Store
from stages.train.trials import Trial
from stages.train.unit import Outcome, Work

SECONDS_TO_SAVE = 120.0  # for units that are told to stop
FACTS = "unit.json"


def search_on_ray(work: Work) -> Outcome:
    """Train every trial on the cluster that `runtime.address` names.

    Raises:
        StageError: no cluster, none that has what a unit needs, or a unit that cannot be trained there.
    """
    versions = library_versions()
    name = fingerprint_of(work.facts(versions))
    state = TrainingState(state_folder() / "train", name, versions)
    with state.lock():
        trials = state.read_result()
        if not trials:
            trials = _Search(work, state).run()
        _forget(work, state)
        facts = state.read_units()
        weights = state.result_weights if state.result_weights.exists() else None
        return Outcome(trials, weights, facts, facts[0]["parameters"], facts[0]["cuts"], state.cost)


def _forget(work: Work, state: TrainingState) -> None:
    """Nothing but the result stays, here and where checkpoints are."""
    state.keep_result_only()
    shutil.rmtree(state.folder / "units", ignore_errors=True)
    if address := work.params.runtime.checkpoints_address:
        for unit in state.read_units():
            Store(address, unit["fingerprint"]).remove()


class _Search:
    """The units of one training, those that are back and those at work."""

    def __init__(self, work: Work, state: TrainingState) -> None:
        self.work, self.state = work, state
        self.done: dict[tuple[int, ...], Path] = {}
        self.at_work: dict[Any, list[Numbered]] = {}

    def run(self) -> list[Trial]:
        """Submit what is not back yet, wait for it, and put all together."""
        training, kind = self.work.params.chosen_protocol.training, self.work.params.chosen_method.kind
        planned = [[]] if kind == "zero-shot" else groups_of_trials(METHODS[kind], training)
        groups = self.state.read_groups(planned)
        waiting = [group for group in groups if not self._is_back(group)]
        if self.done:
            print(f"{len(self.done)} of {len(groups)} units are done already")
        if waiting:
            with cluster(self.work.params.runtime.address) as ray:
                self._train(ray, waiting, len(groups))
        return self._together()

    def _folder(self, group: Sequence[Numbered]) -> Path:
        first, last = (group[0][0], group[-1][0]) if group else (0, 0)
        return self.state.folder / "units" / f"{first:02d}-{last:02d}"

    def _is_back(self, group: Sequence[Numbered]) -> bool:
        folder = self._folder(group)
        if not folder.exists():
            return False
        try:
            self.state.check(folder)
        except DAMAGED as error:
            remove_unusable(folder, error)
            return False
        self.done[tuple(index for index, _ in group)] = folder
        return True

    def _train(self, ray: Any, waiting: list[list[Numbered]], units: int) -> None:
        share = share_of(self.work.params.runtime, ray.nodes(), len(waiting))
        subset, model = (ray.put(send(folder, ray.put)) for folder in (self.work.subset, self.work.model))
        task = ray.remote(**share.options())(train_unit)

        def submit(group: list[Numbered]) -> None:
            self.at_work[task.remote(self._order(group, share), subset, model)] = group

        with StopRequest() as stop:
            try:
                for group in waiting:
                    submit(group)
                while self.at_work:
                    ready, _ = ray.wait([*self.at_work], num_returns=1, timeout=0.5)
                    stop.check()
                    for reference in ready:
                        group = self.at_work.pop(reference)
                        for part in self._take(ray, reference, group, units):
                            submit(part)
            except BaseException:
                self._stop(ray)
                raise

    def _order(self, group: list[Numbered], share: Share) -> Order:
        work, numbers = self.work, [index for index, _ in group]
        runtime = work.params.runtime  # units have another working directory, and may have another home
        runtime = runtime.model_copy(update={"checkpoints": runtime.checkpoints_address})
        versions = library_versions()
        name = fingerprint_of({**work.facts(versions), "trials": numbers})
        return Order(
            work.params.model_copy(update={"runtime": runtime}), group, name,
            work.data_hash, work.base_hash, work.prompt_template, work.code, versions, share,
        )  # fmt: skip

    def _take(self, ray: Any, reference: Any, group: list[Numbered], units: int) -> list[list[Numbered]]:
        """Keep what a unit has given; the parts if it has to be split."""
        try:
            given = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise StageError(*failure_of(ray, error, "a unit of trials")) from None
        if isinstance(given, Split):
            back = [[(index, 0.0) for index in numbers] for numbers in self.done]  # only the numbers are written
            self.state.write_groups([*back, *self.at_work.values(), *given.parts])
            print(f"{len(group)} trials do not fit into the memory there: {len(given.parts)} units of them")
            return given.parts
        if isinstance(given, Failed):
            raise given.error()
        self._keep(given, group)
        unit = given.unit
        where = f"{unit['node']}, GPU {unit['gpus'] or 'none'}, {unit['environments'][-1]['device']}"
        spent = f"{unit['ended'] - unit['began']:.0f} s"
        count = f"{len(self.done)} of {max(units, len(self.done))}"
        print(f"{name_of(group)}: done, {count}: {where}, {spent}", flush=True)
        return []

    def _keep(self, given: Trained, group: list[Numbered]) -> None:
        folder = self._folder(group)
        facts = {**given.unit, "parameters": given.parameters, "cuts": given.cuts}
        with output_folder(folder, fingerprint=self.state.fingerprint) as made:
            if given.weights is not None:
                given.weights.tofile(made / WEIGHTS)
            (made / TRIALS).write_text(json.dumps(given.trials), encoding="utf-8")
            (made / FACTS).write_text(json.dumps(facts), encoding="utf-8")
        self.done[tuple(index for index, _ in group)] = folder

    def _stop(self, ray: Any) -> None:
        """Tell units at work to save and stop, wait for them, and keep those that were done by then."""
        print(f"stopping {len(self.at_work)} units", file=sys.stderr, flush=True)
        with suppress(Exception):  # the cluster itself may be what failed
            for reference in self.at_work:
                ray.cancel(reference)
            ended, _ = ray.wait([*self.at_work], num_returns=len(self.at_work), timeout=SECONDS_TO_SAVE)
            for reference in ended:
                with suppress(ray.exceptions.RayError, OSError):  # it was stopped; it cannot be written
                    given = ray.get(reference, timeout=SECONDS_TO_SAVE)
                    if isinstance(given, Trained):
                        self._keep(given, self.at_work[reference])

    def _together(self) -> list[Trial]:
        """The result of all units, written to the state."""
        trials: list[Trial] = []
        units: list[dict[str, Any]] = []
        weights: dict[int, Path] = {}
        for folder in self.done.values():
            own = [Trial(weights={}, optimizer=None, **one) for one in json.loads((folder / TRIALS).read_bytes())]
            trials += own
            weights |= {trial.index: folder / WEIGHTS for trial in own}
            units.append(json.loads((folder / FACTS).read_bytes()))
        trials.sort(key=lambda trial: trial.index)
        units.sort(key=lambda unit: unit["trials"])
        self.state.cost = together([Cost(**unit["cost"]) for unit in units])
        source = weights[best_trial(trials, self.work.params.chosen_protocol.training.metric_for_best_model).index]
        self.state.write_result(trials, source if source.exists() else None, units)
        return trials
