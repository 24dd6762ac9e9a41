"""`python -m daplake`: the command line, for environments whose scripts are not on PATH."""

import os
import subprocess
import sys

from ._program import program


def main() -> int:
    command = [program(), *sys.argv[1:]]
    if os.name == "posix":
        os.execv(command[0], command)
    # Windows has no exec: a second process would run on after this one has ended. The program gets ctrl-c from the console itself.
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main())
