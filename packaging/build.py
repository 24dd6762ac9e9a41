#!/usr/bin/env python3
"""Builds the packages of a release and puts them into `dist/`.

    packaging/build.py wheel                      a Linux wheel for every glibc since 2.17, linked with zig
    packaging/build.py archive                    a .tar.gz (Windows: .zip) with manual pages, completions and licences
    packaging/build.py deb                        a Debian package
    packaging/build.py image                      the build context of the container image
    packaging/build.py manifests                  checksums, and the winget and Homebrew manifests that refer to them

Build the wheel first: the others package the executable that it left in cargo's target folder. `--dev` takes the development build
instead, which CI has at hand; its packages work on this machine only. Tools come from PyPI and crates.io into the user's cache.
"""

import argparse
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "packaging"
DIST = ROOT / "dist"
LINUX = "x86_64-unknown-linux-gnu"
# The oldest C library that a release runs on: that of 2012, as in CentOS 7 and manylinux2014.
GLIBC = "2.17"
CARGO_DEB = "3.8.0"
# Exit code: a tool cannot be installed. `packaging/check` then leaves a package out.
UNAVAILABLE = 69
SHELLS = {"bash": "daplake.bash", "zsh": "_daplake", "fish": "daplake.fish", "powershell": "daplake.ps1"}


def run(*command, **options):
    """Prints a command and runs it; exits if it fails."""
    print("+", *command, file=sys.stderr)
    subprocess.run([str(part) for part in command], check=True, **options)


def install(*command, **options):
    """Runs an installer of a tool."""
    try:
        run(*command, **options)
    except subprocess.CalledProcessError:
        print(f"The tools for packaging cannot be installed: {command[0]} failed", file=sys.stderr)
        sys.exit(UNAVAILABLE)


def output(*command):
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE).stdout


def cache(*parts):
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "daplake", "packaging", *parts)


def python_tools():
    """Puts the programs of tools.txt on PATH."""
    wanted, place = HERE / "tools.txt", cache("python")
    scripts = place / ("Scripts" if os.name == "nt" else "bin")
    installed = place / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted.read_text():
        shutil.rmtree(place, ignore_errors=True)
        install(sys.executable, "-m", "venv", place)
        install(scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted)
        shutil.copy(wanted, installed)
    os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ['PATH']}"


def cargo_deb():
    """The path of cargo-deb, which has to be compiled once."""
    place = cache(f"cargo-deb-{CARGO_DEB}")
    program = place / "bin" / "cargo-deb"
    if not program.exists():
        environment = {**os.environ, "CARGO_TARGET_DIR": str(place / "target")}
        install("cargo", "install", "--quiet", "--locked", "--debug", "--root", place, "--version", CARGO_DEB, "cargo-deb", env=environment)
        shutil.rmtree(place / "target", ignore_errors=True)
    return program


def metadata(*options):
    """The metadata of the workspace and of this package, from cargo."""
    workspace = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", ROOT / "Cargo.toml", *options))
    return workspace, next(package for package in workspace["packages"] if package["name"] == "daplake")


def program_of(options, workspace):
    """The executable that the other packages contain."""
    if options.binary:
        return Path(options.binary)
    name = "daplake.exe" if "windows" in options.target else "daplake"
    folder = Path(workspace["target_directory"])
    if not options.dev:
        return folder / options.target / "release" / name
    return (folder if options.target == LINUX else folder / options.target) / "debug" / name


def stripped(program, place):
    """Copies a program and removes its symbols, which a release build does not have."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(program, place)
    place.chmod(0o755)
    strip = "x86_64-w64-mingw32-strip" if place.suffix == ".exe" else "strip"
    if shutil.which(strip):
        run(strip, place)
    return place


def licences(target):
    """The licences of all crates in the executable, each text once."""
    kept, _ = metadata("--filter-platform", target)
    used = {node["id"]: node for node in kept["resolve"]["nodes"]}
    packages = {package["id"]: package for package in kept["packages"]}
    reached, waiting = set(), [kept["resolve"]["root"]]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        for dependency in used[name]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    text, texts = [], {}
    for package in sorted((packages[name] for name in reached), key=lambda package: (package["name"], package["version"])):
        if package["name"] == "daplake":
            continue
        text.append(f"{package['name']} {package['version']}: {package['license'] or 'see its licence file'}")
        folder = Path(package["manifest_path"]).parent
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")):
                words = file.read_text(errors="replace").strip()
                texts.setdefault(words, []).append(f"{package['name']} {package['version']} ({file.name})")
    for words, users in texts.items():
        text += ["", "-" * 100, *users, "", words]
    return "Crates in this program, and their licences\n\n" + "\n".join(text) + "\n"


def documents(options, program, stage):
    """Manual pages and completions, which the program prints, and the documents of every package."""
    printer = options.host_binary or program
    shutil.rmtree(stage, ignore_errors=True)
    for name in ("man", "completions"):
        (stage / name).mkdir(parents=True)
    (stage / "man" / "daplake.1").write_bytes(output(printer, "man"))
    for command in commands(printer):
        (stage / "man" / f"daplake-{command}.1").write_bytes(output(printer, "man", command))
    for shell, name in SHELLS.items():
        (stage / "completions" / name).write_bytes(output(printer, "completions", shell))
    for name in ("LICENSE", "CHANGELOG.md", "README.md"):
        shutil.copy(ROOT / name, stage / name)
    (stage / "THIRD-PARTY-LICENSES.txt").write_text(licences(options.target))


def commands(program):
    """Names of the subcommands, as the help lists them."""
    lines = output(program, "--help").decode().split("Commands:\n", 1)[1].split("\n\n", 1)[0].splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")]
    return [name for name in names if name != "help"]


def source_date():
    """The time that packages give their files, so that equal sources make equal packages."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or output("git", "-C", ROOT, "log", "-1", "--format=%ct"))


def wheel(options):
    python_tools()
    command = ["maturin", "build", "--locked", "--out", DIST, "--manifest-path", ROOT / "Cargo.toml"]
    if options.dev:
        # The executable of `cargo test`, unchanged: stripping by the linker would link it again.
        command += ["--profile", "dev", "--strip", "false", "--compatibility", "linux", "--compression-level", "1"]
        command += [] if options.target == LINUX else ["--target", options.target]
    elif "linux" in options.target:
        command += ["--release", "--zig", "--compatibility", "manylinux2014", "--target", options.target]
    else:
        command += ["--release", "--compatibility", "pypi", "--target", options.target]
    run(*command, *options.cargo, cwd=ROOT)


def archive(options):
    workspace, package = metadata()
    program = program_of(options, workspace)
    name = f"daplake-{package['version']}-{options.target}"
    stage = DIST / "stage" / name
    documents(options, program, stage)
    stripped(program, stage / program.name)
    if "linux" in options.target:
        shutil.copytree(HERE / "systemd", stage / "systemd")
    if "windows" in options.target:
        shutil.copy(ROOT / "examples/unattended/windows-task.xml", stage)
    date = source_date()
    files = sorted(path for path in stage.rglob("*") if path.is_file())
    if "windows" in options.target:
        with zipfile.ZipFile(DIST / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for path in files:
                entry = zipfile.ZipInfo(f"{name}/{path.relative_to(stage).as_posix()}", time.gmtime(date)[:6])
                entry.compress_type = zipfile.ZIP_DEFLATED
                packed.writestr(entry, path.read_bytes())
        return
    level = 1 if options.dev else 9
    with open(DIST / f"{name}.tar.gz", "wb") as file, gzip.GzipFile("", "wb", level, file, date) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path in files:
                entry = tar.gettarinfo(path, f"{name}/{path.relative_to(stage).as_posix()}")
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = "root"
                entry.mtime, entry.mode = date, 0o755 if path.name == "daplake" else 0o644
                with open(path, "rb") as content:
                    tar.addfile(entry, content)


def deb(options):
    """Builds the package of `[package.metadata.deb]` in Cargo.toml, which takes all files from `dist/stage/deb`."""
    program = cargo_deb()
    workspace, _ = metadata()
    stage = DIST / "stage" / "deb"
    binary = program_of(options, workspace)
    documents(options, binary, stage)
    stripped(binary, stage / "daplake")
    for page in (stage / "man").iterdir():
        page.with_name(page.name + ".gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()
    fast = ["--fast"] if options.dev else []
    run(program, "--no-build", "--no-strip", *fast, "--target", options.target, "--output", DIST, "--manifest-path", ROOT / "Cargo.toml", cwd=ROOT)


def image(options):
    workspace, _ = metadata()
    context = DIST / "image"
    shutil.rmtree(context, ignore_errors=True)
    stripped(program_of(options, workspace), context / "daplake")
    (context / "lake").mkdir()
    (context / "state").mkdir()
    shutil.copy(HERE / "Dockerfile", context / "Dockerfile")
    print(f"docker build -t daplake {context}")


def manifests(options):
    """Templates name files in `{{sha256:...}}`. A file that was not built leaves its placeholder, which package managers refuse."""
    _, package = metadata()
    sums = {}
    for path in sorted(DIST.iterdir()):
        if path.is_file() and path.name != "SHA256SUMS":
            sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (DIST / "SHA256SUMS").write_text("".join(f"{sum}  {name}\n" for name, sum in sums.items()))
    values = {"version": package["version"], "repository": package["repository"], "description": package["description"]}
    for template in sorted([*HERE.glob("winget/*.yaml"), *HERE.glob("homebrew/*.rb")]):
        text = template.read_text()
        for name, value in values.items():
            text = text.replace("{{" + name + "}}", value)
        for name, sum in sums.items():
            text = text.replace("{{sha256:" + name.removeprefix(f"daplake-{package['version']}-") + "}}", sum)
        place = DIST / "manifests" / template.parent.name / template.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = {step.__name__: step for step in (wheel, archive, deb, image, manifests)}
    parser.add_argument("step", choices=steps, nargs="+", metavar="STEP", help=", ".join(steps))
    parser.add_argument("--target", default=LINUX, help="triple of the target system (default: %(default)s)")
    parser.add_argument("--dev", action="store_true", help="package the development build")
    parser.add_argument("--binary", help="executable to package (default: cargo's)")
    parser.add_argument("--host-binary", help="executable that prints manual pages, where --binary cannot run here")
    parser.add_argument("--cargo", action="append", default=[], metavar="OPTION", help="option of cargo for the wheel, as --cargo=-Zbuild-std; may be repeated")
    options = parser.parse_args()
    DIST.mkdir(exist_ok=True)
    for step in options.step:
        steps[step](options)
    for path in sorted(DIST.iterdir()):
        if path.is_file():
            print(f"{path.stat().st_size / 1e6:8.1f} MB  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
