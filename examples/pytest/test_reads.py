# SPDX-License-Identifier: Apache-2.0
"""Reads of a virtio-blk disk with the pattern of postern's demo, through one queue."""

import json
import os

import pytest

CLIENT = os.environ.get("CLIENT", "virtio-blk-client")


@pytest.mark.parametrize("pattern", ["random", "sequential"])
@pytest.mark.parametrize("depth", [1, 8, 32])
@pytest.mark.parametrize("wait", ["poll", "irq"])
def test_reads_are_right(on_slice, slice_number, pattern, depth, wait):
    result = on_slice(CLIENT, "--reads", 500, "--depth", depth, "--wait", wait, "--pattern", pattern, "--json", timeout=60)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["verified"], told["errors"], told["slice"]) == (500, 0, slice_number)


def test_a_command_that_fails_is_seen(on_slice):
    assert on_slice("sh", "-c", "exit 3", timeout=60).returncode == 3
