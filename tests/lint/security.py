#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""security.py BUILD: what SECURITY.md says is tested is tested by something that exists, and it tells of every hook of the guard.

A test is cited in backticks, in the last column of a table or as `Name.name` anywhere: a GoogleTest or a method of a Python test of the
lab as `Suite.name`, a probe of the hostile client as `group/name` (`group/*`: all of the group), a test of ctest by its name."""
import ast
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(sys.argv[1]).resolve()
DOTTED = re.compile(r"`([A-Z]\w+\.\w+)`")


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def google_tests():
    pattern = re.compile(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\s*\)", re.M)
    found = [match for path in ROOT.glob("tests/**/*.cpp") for match in pattern.findall(path.read_text())]
    return {f"{suite}.{name}" for suite, name in found if not (suite + name).count("DISABLED_")}


def python_tests():
    return {f"{suite.name}.{test.name}" for path in ROOT.glob("tests/lab/*.py") for suite in ast.walk(ast.parse(path.read_text()))
            if isinstance(suite, ast.ClassDef) for test in suite.body if isinstance(test, ast.FunctionDef) and test.name.startswith("test_")}


def probes():
    listed = [line.split()[:2] for line in output(BUILD / "examples" / "hostile-client", "--list").splitlines()]
    return {f"{group}/{name}" for group, name in listed} | {f"{group}/*" for group, _ in listed}


def ctests():
    return set(re.findall(r"^ *Test +#\d+: (\S+)$", output("ctest", "-N", "--test-dir", BUILD), re.M))


def tables(text):
    """Header and rows, each a list of cells, of every table."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        yield cells[0], cells[2:]


KNOWN = {"GoogleTest": google_tests(), "Python": python_tests(), "probe": probes(), "ctest": ctests()}
HOOKS = set(re.findall(r'SEC\("\??lsm/(\w+)"\)', (ROOT / "bpf" / "guard.bpf.c").read_text()))


def kind_of(name):
    return next((kind for kind, names in KNOWN.items() if name in names), None)


def faults(text):
    found, told = [], ""
    for header, rows in tables(text):
        if header[-1] != "tested by":
            continue
        for row in rows:
            cited = re.findall(r"`([^`]+)`", row[-1])
            if len(row) != len(header) or not cited:
                found.append(f"\"{row[0]}\" names no test")
            found += [f"\"{row[0]}\": there is no test {name}" for name in cited if not kind_of(name)]
            if "where decided" in header:
                told += row[header.index("where decided")]
    found += [f"there is no test {name}" for name in DOTTED.findall(re.sub(r"^\|.*$", "", text, flags=re.M)) if not kind_of(name)]
    found += [f"no row tells of the hook {hook}" for hook in sorted(HOOKS) if f"`{hook}`" not in told]
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        target = ROOT / (path or "SECURITY.md")
        if not target.is_file():
            found.append(f"it links to {path}, which is not there")
        elif anchor and anchor not in {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-")
                                       for line in re.findall(r"^#+ (.*)$", target.read_text(), re.M)}:
            found.append(f"it links to #{anchor}, which {target.name} has not")
    return found


document = (ROOT / "SECURITY.md").read_text()
cited = {name for header, rows in tables(document) if header[-1] == "tested by" for row in rows for name in re.findall(r"`([^`]+)`", row[-1])}
cited |= set(DOTTED.findall(document))
found = set(faults(document))
wrong = [f"SECURITY.md: {each}" for each in sorted(found)]

# The control: each of these is a fault that the document does not have.
assert len(HOOKS) >= 6 and all(len(names) >= 10 for names in KNOWN.values()), {kind: len(names) for kind, names in KNOWN.items()}
controls = [("a row's last cell emptied", re.sub(r"\| [^|\n]* \|$", "| |", document, count=document.count("|\n"), flags=re.M)),
            ("a link to nowhere", document + "\n[x](docs/none.md)\n"), ("an anchor that is none", document + "\n[x](#none)\n"),
            ("a name in the text", document + "\n`Decide.NoSuchTest`\n")]
controls += [(f"a {kind} renamed", document.replace(f"`{name}`", f"`{name}x`"))
             for kind in KNOWN for name in [next((each for each in sorted(cited) if kind_of(each) == kind), "")]]
controls += [(f"{hook} removed", document.replace(f"`{hook}`", "")) for hook in HOOKS]
wrong += [f"the control of this test fails: {what} is no fault" for what, text in controls if set(faults(text)) <= found]

if wrong:
    sys.exit("\n".join(f"security: {each}" for each in wrong))
counts = ", ".join(f"{kind} {sum(kind_of(name) == kind for name in cited)}" for kind in KNOWN)
print(f"security: what SECURITY.md cites exists ({counts}), and {len(controls)} changes of it are noticed")
