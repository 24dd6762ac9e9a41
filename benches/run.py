#!/usr/bin/env python3
"""Benchmarks of daplake. `benches/run.py COMMAND --help` lists the options; docs/development/benchmarks.md has the results."""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import cluster, compare, database, download, guard, increment, memory, read_after, round_trips, tables, unchanged

COMMANDS = {
    "compare": compare,
    "increment": increment,
    "read-after": read_after,
    "database": database,
    "memory": memory,
    "download": download,
    "cluster": cluster,
    "guard": guard,
    "unchanged": unchanged,
    "round-trips": round_trips,
    "tables": tables,
}


def main():
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--program", metavar="FILE", help="the program daplake; a release build if not given")
    shared.add_argument("--steps-program", metavar="FILE", help="the built bench `measure`; built if not given")
    shared.add_argument("--save", action="store_true", help="append the results to benches/results/COMMAND.csv")
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        command = commands.add_parser(
            name, parents=[shared], help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.arguments(command)
    options = parser.parse_args()
    return COMMANDS[options.command].main(options)


if __name__ == "__main__":
    sys.exit(main())
