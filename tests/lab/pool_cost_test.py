#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a pool loses between jobs on slices, beside the same without a device, in instructions. Runs as root in the guest, with one CPU and virtual
time that counts instructions (--icount): no load of the machine comes into it."""

import json
import os
import subprocess
import sys

POSTERN = os.path.join(os.environ["POSTERN_BUILD"], "bin/postern")
BLK = os.environ["LAB_VIRTIO_BLK"]

# Millions of instructions for each job, the start and end of its own process (3.4) with it. As measured: 7.5 and 11 with the first launches, for
# which nothing is prepared, in it; before anything was prepared 10 and 31.
MOST = 16
MOST_MORE = 8

subprocess.run([POSTERN, "devices", "bind", BLK], check=True, stdout=subprocess.DEVNULL)
ran = subprocess.run([POSTERN, "bench", "pool", "--device", BLK, "--rounds", "1", "--jobs", "120", "--json"], stdout=subprocess.PIPE, check=True, timeout=400)
figures = {figure["name"]: {side["name"]: side["median"] for side in figure["sides"]} for figure in json.loads(ran.stdout)["figures"]}
between = figures["between"]
print(f"between jobs: {between['slices']:.1f} M instructions on slices, {between['plain']:.1f} without a device; launch {figures['launch']['plain']:.1f}")
if between["slices"] > MOST or between["slices"] - between["plain"] > MOST_MORE:
    sys.exit(f"on slices there should be at most {MOST}, and at most {MOST_MORE} more than without a device")
