"""Trials on a Ray cluster: this process submits them, waits, and keeps what has come back.

Ray queues, places and repeats them, and gives each one GPU (or a share, or threads) of its own. The result of a trial
that has come back is on this disk before the next is waited for, so that whatever is killed, it is not trained again.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from stages.language_model.device import Share, share_of
from stages.plumbing.cluster import Files, cluster, failure_of, on_this_node, receive, scratch, send, unpack
from stages.plumbing.errors import StageError
from stages.plumbing.signals import StopRequest
from stages.train.job import Job, load
from stages.train.state import TrialState, state_root
from stages.train.training import train_trial
from stages.train.trial import Trial

SECONDS_TO_SAVE = 120.0  # for trials that are told to stop
Given = tuple[Trial, Any]  # and the bytes of its weights, an array that travels without a copy; None: they are there


def train_on_ray(job: Job, states: Mapping[float, TrialState], is_best: bool) -> dict[float, Trial]:
    """Bring trials to their results on the cluster at `runtime.address`, as many at a time as it has room for.

    Raises StageError if there is none, if it lacks what a trial needs, or if a trial cannot be trained there.
    """
    runtime, found = job.params.runtime, dict[float, Trial]()
    at_work: dict[Any, float] = {}  # a task of Ray's -> the learning rate of its trial
    shared = runtime.checkpoints is not None  # then every node writes results where this process reads them
    if shared:  # as a whole path: nodes have another working directory, and may have another home
        runtime = runtime.model_copy(update={"checkpoints": str(state_root(runtime))})
        job = replace(job, params=job.params.model_copy(update={"runtime": runtime}))

    def keep(given: Given, rate: float) -> None:
        if not shared:
            states[rate].replace_result(*given)
        found[rate] = given[0]

    with cluster(runtime.address) as ray, StopRequest() as stop:
        share = share_of(runtime, ray.nodes(), len(states))
        inputs = [ray.put(send(folder, ray.put)) for folder in (job.subset, job.model)]
        task = ray.remote(**share.options())(train_there)
        try:
            for rate, state in states.items():
                there = is_best and not shared and state.result.exists()
                result = send(state.result, ray.put) if there else None
                at_work[task.remote(job, rate, is_best, share, result, *inputs)] = rate
            while at_work:
                ready, _ = ray.wait([*at_work], num_returns=1, timeout=0.5)
                stop.check()
                for reference in ready:
                    rate = at_work.pop(reference)
                    keep(ray.get(reference), rate)
                    done = f"{len(states) - len(at_work)} of {len(states)}"
                    print(f"trial {job.rates().index(rate)}: done, {done}", flush=True)
        except BaseException as error:
            print(f"stopping {len(at_work)} trials", file=sys.stderr, flush=True)
            with suppress(Exception):  # the cluster itself may be what failed
                for reference in at_work:
                    ray.cancel(reference)  # it saves and stops; what is done by then is kept
                ended, _ = ray.wait([*at_work], num_returns=len(at_work), timeout=SECONDS_TO_SAVE)
                for reference in ended:
                    with suppress(ray.exceptions.RayError, OSError, StageError):  # it was stopped; it cannot be written
                        keep(ray.get(reference, timeout=SECONDS_TO_SAVE), at_work[reference])
            if isinstance(error, ray.exceptions.RayError):
                raise failure_of(ray, error, "a trial") from None
            raise
    return found


def train_there(
    job: Job, rate: float, is_best: bool, share: Share, result: Files | None, subset: Files, model: Files
) -> Given:
    """Train a trial in a process of Ray's and give what came of it; `result`: if it lacks nothing but its answers."""

    def work(node: str, get: Callable[[Any], Any]) -> Given:
        runtime = share.taken(job.params.runtime, f"trial {job.rates().index(rate)}: on node {node}")
        params = job.params.model_copy(update={"runtime": runtime})
        places = receive(subset, f"subset-{job.data_hash}", get), receive(model, f"model-{job.base_hash}", get)
        loaded = load(replace(job, params=params, subset=places[0], model=places[1]))
        root = state_root(runtime) if runtime.checkpoints is not None else scratch() / "train"
        state = TrialState(root, job.fingerprint(rate, None))
        if result is not None:
            shutil.rmtree(state.result, ignore_errors=True)
            unpack(result, state.result, get)
        trial = train_trial(loaded, rate, state, is_best)
        if runtime.checkpoints is not None:
            return trial, None
        weights = np.fromfile(state.weights, dtype=np.uint8) if state.weights.exists() else None
        shutil.rmtree(state.folder, ignore_errors=True)
        return trial, weights

    return on_this_node(work)
