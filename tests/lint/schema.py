#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shipped profiles fit the published schema, and the schema refuses what is wrong."""
import json
import pathlib
import sys

import jsonschema

profiles = pathlib.Path(__file__).resolve().parents[2] / "profiles"
schema = json.loads((profiles / "schema" / "profile-v1.json").read_text())
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
good = [path for path in sorted(profiles.glob("**/*.json")) if path.parent.name not in ("schema", "seccomp")]
assert len(good) >= 3, "the shipped profiles were not found"
for path in good:
    validator(schema).validate(json.loads(path.read_text()))

full = json.loads((profiles / "virtio-blk-queue.json").read_text())
bad = {
    "an unknown key": lambda p: p.update(devices={}),
    "an unknown window key": lambda p: p["device"]["windows"][0].update(lenght=1),
    "a wrong type": lambda p: p["device"]["windows"][0].update(length=True),
    "another version": lambda p: p.update(postern=2),
    "a method that is none": lambda p: p["device"]["windows"][0].update(methods=["map"]),
}
for what, change in bad.items():
    profile = json.loads(json.dumps(full))
    change(profile)
    if validator(schema).is_valid(profile):
        sys.exit(f"the schema takes {what}")
print(f"schema: {len(good)} profiles fit, {len(bad)} bad ones do not")
