"""The test files that take longest, the longest first, so that all workers end at about the same time."""

LONGEST = (
    "train/test_ray.py", "test_end_to_end.py", "report/test_report.py", "grid/test_grid.py", "faults/test_killed.py",
    "faults/test_starved.py", "train/test_train.py", "faults/test_checkpoints_that_lie.py", "chat/test_chat.py",
    "faults/test_same_bytes.py", "faults/test_dvc.py", "download/test_hub.py",
    "score/test_score.py", "bench/test_bench.py", "export/test_export.py",
)  # fmt: skip
