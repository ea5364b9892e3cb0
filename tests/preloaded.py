"""What the fork server of tests/stage_runs.py loads before its first fork, so that no fork has to."""

import tests.faults.disks  # noqa: F401 - and tests.stage_runs: what a fork is to do comes as one of their functions
