"""Decoding on a Ray cluster: one task, with the same share of a node as a unit of training, its GPU given by Ray."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stages.greedy_generate.generation import Generated, Task, generate
from stages.language_model.device import Share, share_of
from stages.methods.trained_method import read_description
from stages.plumbing.cluster import Files, cluster, failure_of, on_this_node, receive, scratch, send, unpack
from stages.plumbing.files import check_folder, files_hash
from stages.plumbing.signals import StopRequest

Order = tuple[Task, str, Share]  # with the hash of the model


def generate_on_ray(task: Task, model: Path, trained: Path) -> Generated:
    """Answer on a node of the cluster that `runtime.address` names.

    Raises:
        StageError: an input is damaged, there is no cluster, none that has what the task needs, or it failed there.
    """
    model_hash = files_hash(check_folder(model))
    check_folder(trained)
    task.check(trained, read_description(trained, model_hash))
    with cluster(task.params.runtime.address) as ray:
        share = share_of(task.params.runtime, ray.nodes(), 1)
        order = task, model_hash, share
        files = [ray.put(send(folder, ray.put)) for folder in (model, trained)]
        reference = ray.remote(**share.options())(generate_there).remote(order, *files)
        with StopRequest() as stop:
            try:
                while not ray.wait([reference], num_returns=1, timeout=0.5)[0]:
                    stop.check()
                given: Generated = ray.get(reference)
            except ray.exceptions.RayError as error:
                raise failure_of(ray, error, "decoding") from None
            except BaseException:
                ray.cancel(reference, force=True)  # nothing of it is kept, so there is nothing to wait for
                raise
    return given


def generate_there(order: Order, model: Files, trained: Files) -> Generated:
    """Answer in a process of Ray's."""
    return on_this_node(partial(_generate, order, model, trained))


def _generate(order: Order, model: Files, trained: Files, node: str, get: Callable[[Any], Any]) -> Generated:
    task, model_hash, share = order
    runtime = share.taken(task.params.runtime, f"greedy-generate: on node {node}")
    params = task.params.model_copy(update={"runtime": runtime})
    with TemporaryDirectory(prefix="trained-", dir=scratch()) as folder:  # used once, and as large as the model perhaps
        unpack(trained, Path(folder), get)
        return generate(replace(task, params=params), receive(model, f"model-{model_hash}", get), Path(folder))
