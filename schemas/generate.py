#!/usr/bin/env python3
"""Turns a catalogue of tables into the service's JSON Schemas and the index of the demo school.

Usage: python3 schemas/generate.py CATALOGUE_FOLDER

CATALOGUE_FOLDER holds one JSON file for each namespace (canvas.json, canvas_logs.json, ...): tables, their key and value
columns, types, nullability, documented references. Written, relative to this file:

  <namespace>/<table>.json             {"schema": <JSON Schema as the service answers>, "version": 1}
  relations.json                       table -> column -> list of targets
  ../src/demo/school/catalogue/index.rs the same as Rust constants, with the texts embedded

Plain Python 3.11, no dependencies. The output depends on the input only: running it twice changes nothing.
"""

import json
import shutil
import sys
from pathlib import Path

DRAFT = "https://json-schema.org/draft/2020-12/schema"
OVERSIZED = "__dap_oversized_truncated__"
HERE = Path(__file__).resolve().parent
INDEX = HERE.parent / "src" / "demo" / "school" / "catalogue" / "index.rs"


def closed(properties, required, **texts):
    """An object of fixed shape; `required` is left out when nothing is required."""
    node = {"type": "object", **texts, "properties": properties, "additionalProperties": False}
    if required:
        node["required"] = required
    return node


def one_of(first, second, texts):
    return {**texts, "oneOf": [first, second]}


def node_of(entry, texts=None):
    """The schema node of one catalogue entry."""
    texts = texts or {}
    kind = entry["type"]
    if kind == "object":
        properties = {name: node_of(member) for name, member in entry["properties"].items()}
        required = [name for name, member in entry["properties"].items() if member.get("required")]
        return closed(properties, required, **texts)
    if kind == "array":
        return {"type": "array", **texts, "items": node_of(entry["items"])}
    if "open_enum" in entry:
        return one_of({"type": kind, "enum": entry["open_enum"]}, {"type": kind}, texts)
    if "enum" in entry:
        return {"type": kind, **texts, "enum": entry["enum"]}
    if entry.get("decimal"):
        precision, scale = entry["decimal"]
        bound = 10 ** (precision - scale)
        return {
            "type": kind,
            **texts,
            "multipleOf": 10**-scale,
            "exclusiveMinimum": -bound,
            "exclusiveMaximum": bound,
        }
    if isinstance(entry.get("format"), list):
        first, second = ({"type": kind, "format": word} for word in entry["format"])
        return one_of(first, second, texts)
    plain = {"type": kind}
    for keyword in ("format", "maxLength"):
        if keyword in entry:
            plain[keyword] = entry[keyword]
    if entry.get("oversize"):
        return one_of({"type": "string", "const": OVERSIZED}, plain, texts)
    return {"type": kind, **texts, **{word: plain[word] for word in plain if word != "type"}}


def full(namespace, target):
    """`users.id` or `canvas.users.id` as (namespace, table)."""
    parts = target.split(".")
    if parts[-1] != "id" or len(parts) not in (2, 3):
        raise SystemExit(f"cannot read the reference {target!r}")
    return (namespace, parts[0]) if len(parts) == 2 else (parts[0], parts[1])


def description(namespace, entry):
    """A short description, where one is needed."""
    said = []
    if entry.get("refs"):
        names = [t if n == namespace else f"{n}.{t}" for n, t in (full(namespace, ref) for ref in entry["refs"])]
        said.append("References " + " or ".join(f"{name}.id" for name in names) + ".")
    if entry.get("content") == "json":
        said.append("Holds JSON.")
    return {"description": " ".join(said)} if said else {}


def schema_of(namespace, table):
    def columns(entries):
        return {name: node_of(entry, description(namespace, entry)) for name, entry in entries.items()}

    meta = closed(
        {
            "ts": {"type": "string", "description": "Time of the commit.", "format": "date-time"},
            "action": {"type": "string", "description": "Upsert or delete.", "enum": ["U", "D"]},
        },
        ["ts"],
        title="Metadata",
    )
    key = closed(columns(table["key"]), list(table["key"]), title="Key")
    required = [name for name, entry in table["value"].items() if not entry.get("nullable")]
    value = closed(columns(table["value"]), required, title="Value")
    return {
        "$schema": DRAFT,
        "type": "object",
        "properties": {"meta": meta, "key": key, "value": value},
        "additionalProperties": False,
        "required": ["key"],
    }


def dump(path, content):
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def rust(text):
    return json.dumps(text, ensure_ascii=False)


def rust_list(items):
    return "&[" + ", ".join(items) + "]"


def main(folder):
    relations, entries, namespaces = {}, [], []
    for source in sorted(Path(folder).glob("*.json")):
        catalogue = json.loads(source.read_text(encoding="utf-8"))
        namespace = catalogue["namespace"]
        namespaces.append(namespace)
        shutil.rmtree(HERE / namespace, ignore_errors=True)
        for name in sorted(catalogue["tables"]):
            table = catalogue["tables"][name]
            (HERE / namespace).mkdir(exist_ok=True)
            dump(HERE / namespace / f"{name}.json", {"schema": schema_of(namespace, table), "version": 1})
            columns = {**table["key"], **table["value"]}
            targets = {
                column: [".".join(full(namespace, ref)) for ref in entry["refs"]]
                for column, entry in columns.items()
                if entry.get("refs")
            }
            if targets:
                relations[f"{namespace}.{name}"] = {
                    column: [f"{target}.id" for target in found] for column, found in targets.items()
                }
            entries.append((namespace, name, targets, [c for c, e in columns.items() if e.get("content") == "json"]))
    dump(HERE / "relations.json", relations)

    lines = [
        "//! The catalogue as constants: texts of schemas, documented references, columns that hold JSON. Generated by",
        "//! `schemas/generate.py`; change the generator or its input instead.",
        "",
        "use crate::demo::school::catalogue::entry::Entry;",
        "",
        f"pub(crate) const NAMESPACES: &[&str] = {rust_list(rust(n) for n in namespaces)};",
        "",
        "pub(crate) const ENTRIES: &[Entry] = &[",
    ]
    for namespace, name, targets, texts in entries:
        refs = [f"({rust(column)}, {rust_list(rust(t) for t in found)})" for column, found in targets.items()]
        lines += [
            "    Entry {",
            f"        namespace: {rust(namespace)},",
            f"        table: {rust(name)},",
            f'        text: include_str!("../../../../schemas/{namespace}/{name}.json"),',
            f"        references: {rust_list(refs)},",
            f"        json: {rust_list(rust(column) for column in texts)},",
            "    },",
        ]
    lines.append("];")
    INDEX.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(entries)} tables, {sum(map(len, relations.values()))} columns with references")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
