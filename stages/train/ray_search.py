"""Trials on a Ray cluster: this process submits them, waits, and keeps what has come back.

Ray queues, places and repeats them, and gives each one GPU (or a share, or threads) of its own. The result of a trial
that has come back is on this disk before the next is waited for, so that whatever is killed, it is not trained again.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace

from safetensors.torch import load as tensors_of

from stages.language_model.device import Share, share_of
from stages.plumbing.cluster import Files, cluster, gather, on_this_node, receive, send, unpack
from stages.train.job import Job, load
from stages.train.state import TrialState, state_root
from stages.train.training import train_trial
from stages.train.trial import Trial

SECONDS_TO_SAVE = 120.0  # for trials that are told to stop
Given = tuple[Trial, bytes]  # and the file of its weights; nothing where there is none, or it need not travel


def train_on_ray(job: Job, states: Mapping[float, TrialState], is_best: bool) -> dict[float, Trial]:
    """Bring trials to their results on the cluster at `runtime.address`, as many at a time as it has room for.

    Raises StageError if there is none, if it lacks what a trial needs, or if a trial cannot be trained there.
    """
    runtime, found = job.params.runtime, dict[float, Trial]()
    shared = runtime.checkpoints is not None  # then every node writes results where this process reads them
    if shared:  # as a whole path: nodes have another working directory, and may have another home
        runtime = runtime.model_copy(update={"checkpoints": str(state_root(runtime))})
        job = replace(job, params=job.params.model_copy(update={"runtime": runtime}))

    def keep(rate: float, given: Given) -> None:
        trial, weights = given
        if not shared:
            with states[rate].lock():
                states[rate].write_result(trial, tensors_of(weights) if weights else {})
        found[rate] = trial
        print(f"trial {job.rates().index(rate)}: done, {len(found)} of {len(states)}", flush=True)

    with cluster(runtime.address) as ray:
        share = share_of(runtime, ray.nodes(), len(states))
        inputs = [ray.put(send(folder, ray.put)) for folder in (job.subset, job.model)]
        task, at_work = ray.remote(**share.options())(train_there), {}
        for rate, state in states.items():
            there = is_best and not shared and state.result.exists()
            result = send(state.result, ray.put) if there else None
            at_work[task.remote(job, rate, is_best, share, result, *inputs)] = rate
        gather(ray, at_work, keep, "a trial", SECONDS_TO_SAVE)
    return found


def train_there(
    job: Job, rate: float, is_best: bool, share: Share, result: Files | None, subset: Files, model: Files
) -> Given:
    """Train a trial in a process of Ray's and give what came of it; `result`: if it lacks nothing but its answers."""
    with on_this_node() as (node, get):
        runtime = share.taken(job.params.runtime, f"trial {job.rates().index(rate)}: on node {node}")
        params = job.params.model_copy(update={"runtime": runtime})
        places = receive(subset, f"subset-{job.data_hash}", get), receive(model, f"model-{job.base_hash}", get)
        loaded = load(replace(job, params=params, subset=places[0], model=places[1]))
        state = TrialState(state_root(runtime), job.fingerprint(rate, None))
        if result is not None:
            unpack(result, state.result, get)
        trial = train_trial(loaded, rate, state, is_best)
        if runtime.checkpoints is not None:
            return trial, b""
        weights = state.weights.read_bytes() if state.weights.exists() else b""
        shutil.rmtree(state.folder, ignore_errors=True)
        return trial, weights
