#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""commands.py BUILD: help, completion and the manual tell of the same commands and options.

`--help` is the witness: it is the parser's own, and nothing else here is made from it.
"""
import os
import pathlib
import re
import subprocess
import sys

BUILD = pathlib.Path(sys.argv[1]).resolve()
POSTERN = BUILD / "bin" / "postern"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
wrong = []


def expect(condition, what):
    if not condition:
        wrong.append(what)


def output(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def read_help(path=()):
    """{path: options} of a command and all below it."""
    text = output(POSTERN, *path, "--help")
    body = text.split("\nusage:")[0]
    options = {name for line in re.findall(r"^  (-.*)$", body, re.M) for name in OPTION.findall(line.split("  ")[0])}
    found = {path: options}
    listed = re.search(r"^Subcommands:\n((?:  .*\n)+)", text, re.M)
    for name in re.findall(r"^  (\w[\w-]*)", listed[1] if listed else "", re.M):
        found.update(read_help(path + (name,)))
    return found


def complete(line):
    """What bash offers at the end of `line`."""
    script = 'source "$1"; COMP_LINE=$2 COMP_POINT=${#2}; _postern; printf "%s\\n" "${COMPREPLY[@]}"'
    environment = dict(os.environ, PATH=f"{BUILD / 'bin'}:{os.environ['PATH']}")
    found = output("bash", "-c", script, "bash", BUILD / "packaging" / "postern.bash", line, env=environment,
                   cwd=BUILD)
    return set(found.split())


def page(name):
    """A page as it is read; groff must have nothing to complain of."""
    run = subprocess.run(["groff", "-man", "-Tutf8", "-k", "-ww", "-P-cbou", "-rLL=500n", BUILD / "packaging" / "man" / name],
                         capture_output=True, text=True)
    expect(run.returncode == 0 and not run.stderr, f"{name}: groff says {run.stderr.strip()}")
    return run.stdout


commands = read_help()
expect(len(commands) >= 12, f"--help tells of {len(commands)} commands only: is its form another?")

version = output(POSTERN, "--version")
expect(re.fullmatch(r"postern \d+\.\d+\.\d+\n", version), f"--version says {version!r}")
for path, options in commands.items():
    name = " ".join(("postern",) + path)
    expect(output(POSTERN, *path, "--version") == version, f"{name} --version says something else")
    expect(complete(f"{name} --") >= options, f"{name}: bash does not complete {options - complete(f'{name} --')}")
    below = {each[-1] for each in commands if len(each) == len(path) + 1 and each[:-1] == path}
    expect(complete(f"{name} ") >= below, f"{name}: bash does not complete {below}")

# What is completed in a value's place, and what is not.
for line, there, absent in (
        ("postern run --profile vi", {"virtio-blk-queue"}, "--device"),
        ("postern run --profile=vi", {"virtio-blk-queue"}, "--profile"),
        ("postern profile lint --json virt", {"virtio-blk-queue"}, "lint"),
        ("postern run --root h", {"host-ro"}, "empty"),
        ("postern run --setenv A B --dr", {"--dry-run"}, "--device"),
        ("postern run --slice 1 -- tru", {"true"}, "--device"),
        ("postern pro", {"profile"}, "pool")):
    found = complete(line)
    expect(there <= found and absent not in found, f"bash completes `{line}` to {sorted(found)[:8]}")
expect(not complete("postern run --setenv --"), "bash offers options in the place of --setenv's first word")

fish = (BUILD / "packaging" / "postern.fish").read_text()
for path, options in commands.items():
    for option in options:
        expect(f" -l {option[2:]} " in fish, f"fish does not complete {option}")

pages = {name: page(name) for name in ("postern.1", "postern-run.1", "postern-profile.5", "postern-client.7", "postern-jobs.7", "postern-containers.7")}
for path, options in commands.items():
    about = pages["postern-run.1" if path and path[0] in ("run", "pool", "systemd-run") else "postern.1"]
    name = " ".join(path)
    expect(re.search(rf"\b{name}\b", pages["postern.1"]), f"postern.1 does not tell of {name}")
    missing = options - set(OPTION.findall(about))
    expect(not missing, f"the manual of {name} does not tell of {sorted(missing)}")
known = set().union(*commands.values())
for name in ("postern.1", "postern-run.1", "postern-profile.5"):
    expect(set(OPTION.findall(pages[name])) <= known, f"{name} tells of {set(OPTION.findall(pages[name])) - known}")
# The table of a document must not be lost on its way.
for key in ("shared_page", "no_new_privs", "hugepages"):
    expect(key in pages["postern-profile.5"], f"postern-profile.5 does not tell of {key}")

if wrong:
    sys.exit("\n".join(f"commands: {each}" for each in wrong))
print(f"commands: {len(commands)} commands with {len(known)} options are told of alike in help, completion and manual")
