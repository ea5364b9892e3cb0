"""Row d of the benchmark: the share of time spent on matrix products, and the least time that these would need."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils.flop_counter import FlopCounterMode

from stages.bench.clock import seconds
from stages.bench.data import LENGTHS, TRAINING, Bench, new_trials
from stages.language_model.base_model import Weights
from stages.language_model.cpu_linear import is_for_onednn, product
from stages.methods.batch import collate
from stages.methods.decoding import greedy
from stages.methods.method import Method
from stages.train.trials import train_step
from stages.train.trials_per_pass import TrialsPerPass

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise", "aten::mkldnn_linear")
FUSED = ("_attention_forward", "_attention_backward", "_flash_attention", "_efficient_attention")
WARM, TIMINGS = 3, 3  # the first calls still take memory from the system
LARGE = {"cuda": 8192}  # rows and columns of a large product


def _linear_flop(
    rows: torch.Size, weight: torch.Size, *args: object, out_shape: object = None, **kwargs: object
) -> int:
    return 2 * rows.numel() * weight[0]


def count_flop(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in one call."""
    own = {torch.ops.mkldnn._linear_pointwise: _linear_flop} if is_for_onednn(torch.float32) else {}
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        work()
    return int(counter.get_total_flops())


def peak_flop(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of one large matrix product here, with the faster of the two libraries that compute it."""
    size = LARGE.get(device.type, 2048)
    rows, weight = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    libraries: list[Callable[[], object]] = [lambda: F.linear(rows, weight)]
    if device.type == "cpu" and is_for_onednn(dtype):
        libraries.append(lambda: product(rows, weight, None))
    with torch.inference_mode():
        return 2 * size**3 / min(seconds(library, device) for library in libraries * 5)


def profile_of(work: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """The total time of the operators, the share of matrix products, and the five other operators with most time.

    On a GPU it is the time of the kernels that the operators start.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    once = schedule(wait=0, warmup=1, active=1, repeat=1)  # at its start the profiler itself takes memory
    with profile(activities=activities, schedule=once) as recorded:
        for _ in range(2):
            seconds(work, device)
            recorded.step()
    times: dict[str, float] = {}
    for event in recorded.key_averages():
        if event.device_type == torch.profiler.DeviceType.CPU and not event.key.startswith("ProfilerStep"):
            own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
            times[event.key] = times.get(event.key, 0.0) + own
    total = sum(times.values())
    others = {name: time / total for name, time in times.items() if not is_product(name)}
    return {
        "operators_ms": total / 1e3,
        "products_share": 1 - sum(others.values()),
        "largest_others": sorted(others.items(), key=lambda item: -item[1])[:5],
    }


def is_product(name: str) -> bool:
    """Whether an operator is a matrix product; fused attention counts as one."""
    return name in PRODUCTS or any(part in name for part in FUSED)


def describe(subject: str, work: Callable[[], object], dtype: torch.dtype, device: torch.device, peak: float) -> Any:
    """One line: the time the products need at the speed of a large one, the measured time, what else takes time."""
    for _ in range(WARM):
        work()
    taken = [seconds(work, device) for _ in range(TIMINGS)]
    flop = count_flop(work)
    return {
        "subject": subject,
        "precision": str(dtype).removeprefix("torch."),
        "measured_ms": 1e3 * statistics.median(taken),
        "repeats_ms": [1e3 * each for each in taken],
        "floor_ms": 1e3 * flop / peak,
        "flop": flop,
        "peak_flop_per_second": peak,
        **profile_of(work, device),
    }


def _step(bench: Bench, name: str, trials: int) -> Callable[[], object]:
    method = bench.method(name)
    own = new_trials(method, trials)
    batch, per_pass = collate(bench.typical_batch()).to(bench.device), TrialsPerPass(trials)
    return lambda: train_step(method, own, batch, TRAINING, per_pass, dropout_seed=0)


def products_rows(bench: Bench, name: str, decoder: Method, weights: Weights) -> dict[str, list[dict[str, Any]]]:
    """Row d: a step of each method on a typical batch, and decoding all queries with one method (`name`)."""
    base = bench.base
    peak = peak_flop(base.dtype, base.device)
    lines = []
    for method, trials in (("fine-tune", 1), ("soft", 1), ("dynamic", 1), ("dynamic", bench.trials)):
        subject = f"step of {method}, {trials} trial{'s' * (trials > 1)}"
        lines.append(describe(subject, _step(bench, method, trials), base.dtype, base.device, peak))
    own = {key: value.to(base.device) for key, value in weights.items()}
    lines.append(
        describe(
            f"{len(bench.queries)} responses by {name}",
            lambda: greedy(decoder, [own], bench.queries, LENGTHS.max_new_tokens, bench.end),
            decoder.base.dtype, base.device, peak_flop(decoder.base.dtype, base.device),
        )
    )  # fmt: skip
    return {"d": lines}
