"""Writes the tables of docs/development/benchmarks.md from the files in benches/results.

A table is placed between the lines `<!-- results: NAME -->` and `<!-- end -->`. It has the newest date of each case in `NAME.csv`, one
row per tool. With `--check` nothing is written, and the command fails if the page is not current.
"""

import csv
import re

from .programs import ROOT
from .results import FOLDER

PAGE = ROOT / "docs" / "development" / "benchmarks.md"
MARKED = re.compile(r"(<!-- results: ([a-z-]+)(?: ([^\n>]+))? -->\n).*?(<!-- end -->)", re.S)
FIGURES = [
    ("CPU s", "cpu_seconds", "{:,.2f}"),
    ("wall s", "seconds", "{:,.2f}"),
    ("server CPU s", "server_cpu_seconds", "{:,.1f}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("MiB out", "mib_out", "{:,.2f}"),
    ("ratio", "ratio", "{:.2f}"),
]


def arguments(parser):
    parser.add_argument("--check", action="store_true")


def main(options):
    text = PAGE.read_text()
    written = MARKED.sub(lambda found: found[1] + table(found[2], found[3] or "") + found[4], text)
    if options.check:
        if written != text:
            print(f"{PAGE.relative_to(ROOT)} is not current; run benches/run.py tables")
        return int(written != text)
    PAGE.write_text(written)
    return 0


def rows_of(name, prefix):
    """The rows of a file whose case begins with a text; of each case only those of its newest date."""
    with open(FOLDER / f"{name}.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["case"].startswith(prefix)]
    newest = {}
    for row in rows:
        newest[row["case"]] = max(newest.get(row["case"], ""), row["date"])
    return [row for row in rows if row["date"] == newest[row["case"]]]


def table(name, prefix):
    rows = rows_of(name, prefix)
    for row in rows:
        row["mib_out"] = str(float(row["bytes_out"]) / 2**20) if row["bytes_out"] else ""
    figures = [figure for figure in FIGURES if any(row[figure[1]] for row in rows)]
    heads = ["case", "tool", *(head for head, _, _ in figures)]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * 2 + ["--:"] * len(figures)) + " |"]
    last = None
    for row in rows:
        cells = [form.format(float(row[column])) if row[column] else "" for _, column, form in figures]
        lines.append("| " + " | ".join(["" if row["case"] == last else row["case"], row["tool"], *cells]) + " |")
        last = row["case"]
    return "\n" + "\n".join(lines) + "\n\n"
