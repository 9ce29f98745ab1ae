#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ci_examples.py BUILD: the example workflows are YAML, their scripts are shell, and every command and option of postern's in them exists.

`--help` is the witness."""
import pathlib
import py_compile
import re
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
POSTERN = pathlib.Path(sys.argv[1]).resolve() / "bin" / "postern"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
wrong = []


def scripts(node, key=""):
    """All that a runner would give to a shell."""
    if isinstance(node, dict):
        return [text for name, value in node.items() for text in scripts(value, name)]
    if isinstance(node, list):
        return [text for value in node for text in scripts(value, key)]
    return [node] if key in ("run", "script", "before_script", "after_script") else []


def check(script, where):
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    if checked.returncode != 0:
        wrong.append(f"{where}: {checked.stderr}")
    count = 0
    for line in script.replace("\\\n", " ").splitlines():
        for name, words in re.findall(r"\bpostern ([a-z-]+)(.*)", line):
            count += 1
            helped = subprocess.run([POSTERN, name, "--help"], capture_output=True, text=True)
            known = set(OPTION.findall(helped.stdout))
            if helped.returncode != 0:
                wrong.append(f"{where}: postern has no command {name}")
            wrong.extend(f"{where}: postern {name} has no {option}" for option in OPTION.findall(words.split(" -- ")[0]) if option not in known)
    return count


commands = 0
files = sorted((ROOT / "examples" / "ci").glob("*.yml"))
for file in files:
    found = scripts(yaml.safe_load(file.read_text()))
    commands += sum(check(script, file.name) for script in found)
if len(files) < 2 or commands < 8:
    wrong.append(f"{len(files)} files with {commands} commands of postern's: are the examples somewhere else?")
# The control: what is wrong is seen.
before = len(wrong)
check("postern pool --no-such-option 'x", "control")
check("postern nothing", "control")
if len(wrong) != before + 3:
    wrong.append("the control passes")
del wrong[before:before + 3]
with tempfile.TemporaryDirectory() as folder:
    for file in (ROOT / "examples" / "pytest").glob("*.py"):
        py_compile.compile(str(file), cfile=f"{folder}/x", doraise=True)

for line in wrong:
    print(line)
print(f"ci examples: {len(files)} workflows with {commands} commands of postern's")
sys.exit(1 if wrong else 0)
