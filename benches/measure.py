#!/usr/bin/env python3
"""Runs a command and prints wall time, CPU time and peak memory of it and its children.

usage: measure.py COMMAND [ARGUMENT...]
"""

import resource
import subprocess
import sys
import time

begun = time.monotonic()
code = subprocess.call(sys.argv[1:])
wall = time.monotonic() - begun
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(
    f"wall {wall:.2f} s, CPU {used.ru_utime + used.ru_stime:.2f} s, peak {used.ru_maxrss / 1024:.0f} MiB, exit {code}",
    file=sys.stderr,
)
sys.exit(code)
