"""Preprocessor of mdBook: links from the pages to files outside of docs/ lead to the repository, because the book has no copy of them."""

import json
import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
REPOSITORY = re.search(r'^repository = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def rewrite(item):
    chapter = item.get("Chapter") if isinstance(item, dict) else None
    if not chapter or not chapter["path"]:
        return
    folder = posixpath.join("docs", posixpath.dirname(chapter["path"]))

    def absolute(link):
        path, anchor = link[1], link[2] or ""
        target = posixpath.normpath(posixpath.join(folder, path))
        if "://" in path or target.startswith("docs/"):
            return link[0]
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"]({REPOSITORY}/{kind}/main/{target}{anchor})"

    chapter["content"] = re.sub(r"\]\(([^)#\s]+)(#[^)\s]*)?\)", absolute, chapter["content"])
    for nested in chapter["sub_items"]:
        rewrite(nested)


if sys.argv[1:2] == ["supports"]:
    sys.exit(0)
_, book = json.load(sys.stdin)
for item in book["items"] if "items" in book else book["sections"]:
    rewrite(item)
json.dump(book, sys.stdout)
