#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""device_state.py arm|read FILE: a setup or teardown program for an NVMe controller. "arm" leaves traces in registers that a
client without a window there must not change; both write what the device looks like to FILE: its registers and its configuration
space (command register, BARs, MSI-X)."""

import json
import os
import sys

BAR0, CONFIG = 0, 7 << 40
# NVMe 1.4, 3.1, those that can be written.
REGISTERS = {"cc": 0x14, "aqa": 0x24, "asq_lo": 0x28, "asq_hi": 0x2c, "acq_lo": 0x30, "acq_hi": 0x34}
# CC.EN stays 0: the controller uses no queue, whatever its registers say.
ARMED = {"cc": 0x00460000, "aqa": 0x001f001f, "asq_lo": 0x12345000, "asq_hi": 0x5a, "acq_lo": 0x23456000, "acq_hi": 0x5b}


def main(verb, path):
    device = 3 + os.environ["LISTEN_FDNAMES"].split(":").index("device")
    if verb == "arm":
        for name, value in ARMED.items():
            os.pwrite(device, value.to_bytes(4, "little"), BAR0 + REGISTERS[name])
    state = {name: int.from_bytes(os.pread(device, 4, BAR0 + offset), "little") for name, offset in REGISTERS.items()}
    if verb == "arm" and any(state[name] != value for name, value in ARMED.items()):
        sys.exit(f"the device's registers do not keep what they are given: {state}")
    state["config"] = os.pread(device, 256, CONFIG).hex()
    with open(path, "w") as file:
        json.dump(state, file)


main(*sys.argv[1:])
