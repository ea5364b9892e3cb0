"""Run a command in a process of its own and write its seconds and its peak of memory: `alone.py OUT COMMAND...`.

What runs here has to be small: a process inherits the peak of the one that starts it.
"""

import json
import os
import subprocess
import sys
import time


def main() -> int:
    """Run, write, and give back the command's exit code."""
    start = time.monotonic()
    process = subprocess.Popen(sys.argv[2:])
    _, status, usage = os.wait4(process.pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    found = {
        "seconds": time.monotonic() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * unit,
    }
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(found, file)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
