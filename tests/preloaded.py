# ruff: noqa: F401
"""What the fork server of tests/stage_runs.py loads before its first fork, so that no fork has to load it."""

import stages.download.fetch
import stages.greedy_generate.on_ray
import stages.language_model.device
import stages.pair_extract.pairs
import stages.pair_extract.references
import stages.plumbing.command
import stages.score.scorer
import stages.subset.regime
import stages.train.search
import tests.faults.disks  # and tests.stage_runs: what a fork is to do comes as one of their functions
