#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""schema.py BUILD: the shipped profiles fit the published schema, and it judges good and bad ones as postern does."""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import jsonschema

POSTERN = pathlib.Path(sys.argv[1]).resolve() / "bin" / "postern"
profiles = pathlib.Path(__file__).resolve().parents[2] / "profiles"
schema = json.loads((profiles / "schema" / "profile-v1.json").read_text())
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
shipped = [path for path in sorted(profiles.glob("**/*.json")) if path.parent.name not in ("schema", "seccomp")]
assert len(shipped) >= 3, "the shipped profiles were not found"
for path in shipped:
    validator(schema).validate(json.loads(path.read_text()))

full = json.loads((profiles / "virtio-blk-queue.json").read_text())
folder = tempfile.TemporaryDirectory(prefix="postern-schema-")
wrong = []
judged = {}


def refusal_of(profile):
    """What postern says against it; empty if it takes it."""
    path = pathlib.Path(folder.name, "judged.json")
    path.write_text(json.dumps(profile))
    run = subprocess.run([POSTERN, "profile", "lint", path], capture_output=True, text=True, check=False)
    return run.stderr if run.returncode else ""


def judge(what, profile, is_good):
    if what in judged:
        return
    judged[what] = is_good
    if validator(schema).is_valid(profile) != is_good:
        wrong.append(f"the schema {'refuses' if is_good else 'takes'} {what}")
    refused = refusal_of(profile)
    if bool(refused) == is_good:
        wrong.append(f"postern {'refuses' if is_good else 'takes'} {what} {refused}".rstrip())


def changed(change):
    profile = json.loads(json.dumps(full))
    change(profile)
    return profile


def with_ioctls(*ioctls):
    return {"postern": 1, "slices": 4, "device": {"ioctls": list(ioctls)}}


def ruled(*args, name="VFIO_DEVICE_SET_IRQS"):
    return with_ioctls({"name": name, "args": list(args)})


bad = {
    "an unknown key": lambda p: p.update(devices={}),
    "an unknown window key": lambda p: p["device"]["windows"][0].update(lenght=1),
    "a wrong type": lambda p: p["device"]["windows"][0].update(length=True),
    "another version": lambda p: p.update(postern=2),
    "a method that is none": lambda p: p["device"]["windows"][0].update(methods=["map"]),
}
for what, change in bad.items():
    judge(what, changed(change), False)

index = {"field": "index", "equals": "msix"}
start = {"field": "start", "equals": {"base": 1, "stride": "0x1"}}
judge("rules of every form", ruled(
    index, start, {"field": "index", "in": [2, "0x2", "msi", {"base": 1, "stride": 0}]}, {"field": "start", "min": 1},
    {"field": "start", "max": {"base": 8, "stride": 8}}, {"field": "count", "min": 0, "max": "4KiB"},
    {"field": "flags", "mask": "0x21"}, {"field": "flags", "mask": 7, "equals": 1}, {"field": "argsz", "mask": 3, "in": [0, 2]}), True)
judge("one ioctl in alternatives, one of them without rules",
      with_ioctls({"name": "VFIO_DEVICE_SET_IRQS", "args": [index]}, {"name": "VFIO_DEVICE_SET_IRQS", "args": [start]},
                  {"name": "VFIO_DEVICE_FEATURE"}, {"name": "VFIO_DEVICE_RESET", "args": []}), True)
for what, args in {
        "a field that the struct has not": [{"field": "vector", "equals": 2}],
        "a rule that tests nothing": [{"field": "index"}],
        "a rule of no field": [{"equals": 2}],
        "an unknown test": [{"field": "index", "equal": 2}],
        "two tests in one rule": [{"field": "index", "equals": 2, "in": [2]}],
        "a value and a range in one rule": [{"field": "index", "equals": 1, "max": 2}],
        "a list and a range in one rule": [{"field": "index", "in": [1], "min": 1}],
        "an empty list": [{"field": "index", "in": []}],
        "a list that is none": [{"field": "index", "in": 2}],
        "a name that is no value": [{"field": "index", "equals": "msi-x"}],
        "a name in a list that is no value": [{"field": "index", "in": ["msix", "msi-x"]}],
        "a name for a field that has none": [{"field": "start", "equals": "msix"}],
        "a negative value": [{"field": "start", "equals": -1}],
        "half of a stepped value": [{"field": "start", "equals": {"base": 1}}],
        "a stepped mask": [{"field": "flags", "mask": {"base": 1, "stride": 1}}],
        "49 values": [{"field": "start", "in": list(range(49))}],
        "rules that are no list": {"field": "index", "equals": 2}}.items():
    profile = ruled()
    profile["device"]["ioctls"][0]["args"] = args
    judge(what, profile, False)


# Which ioctls can have rules, their fields and the names of values: postern's table is the truth.
def names_in(text, words):
    found = re.search(words + r" ([\w, -]+)", text)
    return set(found[1].split(", ")) if found else set()


ioctls = schema["$defs"]["ioctl_name"]["enum"]
with_fields = {}
for name in ioctls:
    listed = names_in(refusal_of(ruled({"field": "x", "equals": 0}, name=name)).strip(), "its fields are")
    if listed:
        with_fields[name] = listed
    judge(f"rules on {name}", ruled({"field": sorted(listed or {"flags"})[0], "equals": 0}, name=name), bool(listed))
assert len(with_fields) >= 3, "postern tells of the fields in other words now"
for name, fields in with_fields.items():
    for field in fields:
        judge(f"a rule on {field} of {name}", ruled({"field": field, "equals": 0}, name=name), True)
        for value in names_in(refusal_of(ruled({"field": field, "equals": "x"}, name=name)).strip(), "known are") - {"or a number"}:
            judge(f"{field} = {value}", ruled({"field": field, "equals": value}, name=name), True)
for rule in schema["$defs"]["ioctl"]["anyOf"][1]["allOf"]:
    name = rule["if"]["properties"]["name"].get("const")
    for field in rule["then"]["properties"]["args"]["items"]["properties"]["field"]["enum"] if name else ():
        judge(f"a rule on {field} of {name}", ruled({"field": field, "equals": 0}, name=name), True)
for field, on in (("index", "VFIO_DEVICE_SET_IRQS"), ("feature", "VFIO_DEVICE_FEATURE"), ("direction", "VFIO_DEVICE_FEATURE")):
    for value in schema["$defs"][f"{field}_value"]["anyOf"][1]["enum"]:
        judge(f"{field} = {value}", ruled({"field": field, "equals": value}, name=on), True)

kvm = {"name": "kvm", "path": "/dev/kvm", "ioctls": ["KVM_GET_API_VERSION", "0xae03"]}
page = {"name": "page", "offset": 0, "length": 4096, "methods": ["mmap", "pread"]}
memory = {"name": "memory", "fd": "pages", "windows": [page], "forward": "never"}
judge("files", {"postern": 1, "files": [kvm, memory, {"name": "seven", "fd": 7}, {"name": "eight", "fd": "8"}]}, True)
judge("rules on a file's ioctl", {"postern": 1, "files": [{**kvm, "ioctls": [
    {"name": "UDMABUF_CREATE", "args": [{"field": "size", "max": "2MiB"}]}]}]}, True)
for what, change in {
        "a file of no source": {"path": None},
        "a file of two sources": {"fd": "kvm"},
        "a relative path": {"path": "dev/kvm"},
        "a file's dma-buf": {"windows": [{**page, "methods": ["dmabuf"]}]},
        "a file's region": {"windows": [{**page, "region": "bar0"}]},
        "a file without a name": {"name": None},
        "a number that is none": {"ioctls": ["0xae0000000"]},
        "an unknown key of a file": {"ioctl": []}}.items():
    judge(what, {"postern": 1, "files": [{k: v for k, v in {**kvm, **change}.items() if v is not None}]}, False)
judge("the access of an fd", {"postern": 1, "files": [{**memory, "access": "r"}]}, False)

for what, rules, is_good in (
        ("Landlock rules of every form", {"read": ["/usr"], "write": [], "execute": ["/"], "ioctl": ["/dev/tty"], "bind_tcp": [0, "0x50"],
                                          "connect_tcp": [65535], "scopes": ["signal", "abstract_unix_socket"], "require": True}, True),
        ("no Landlock rules", {}, True), ("no Landlock", "none", True), ("a Landlock that is none", "all", False),
        ("a relative path in Landlock rules", {"read": ["usr"]}, False), ("a port that is none", {"bind_tcp": [65536]}, False),
        ("a scope that is none", {"scopes": ["socket"]}, False), ("an unknown kind of Landlock rules", {"exec": []}, False),
        ("a path that is no list", {"read": "/usr"}, False)):
    judge(what, {"postern": 1, "sandbox": {"landlock": rules}}, is_good)
for what, limit, is_good in (("a limit of CPU time", "10s", True), ("seconds of CPU time", 5, True), ("no CPU time at all", 0, False),
                             ("CPU time in days", "1d", False)):
    judge(what, {"postern": 1, "sandbox": {"cpu_limit": limit}}, is_good)

ids = [[0, 100000, 1000], ["1000", "0x3e8", 1]]
for what, user, is_good in (
        ("subordinate ids", {"subids": True}, True), ("maps of ids", {"uid_map": ids, "gid_map": ids}, True),
        ("one map of ids alone", {"uid_map": ids}, False), ("the other map of ids alone", {"gid_map": ids}, False),
        ("a map without a range", {"uid_map": [], "gid_map": ids}, False), ("a range of two numbers", {"uid_map": [[0, 1]], "gid_map": ids}, False),
        ("a range of no ids", {"uid_map": [[0, 1, 0]], "gid_map": ids}, False), ("a range that is none", {"uid_map": [0, 1, 1], "gid_map": ids}, False)):
    judge(what, {"postern": 1, "sandbox": {"user": user}}, is_good)

if wrong:
    sys.exit("\n".join(f"schema: {each}" for each in wrong))
good = list(judged.values()).count(True)
print(f"schema: {len(shipped)} shipped profiles fit, {good} good and {len(judged) - good} bad ones are judged as postern does")
