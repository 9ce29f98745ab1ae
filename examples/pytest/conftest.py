# SPDX-License-Identifier: Apache-2.0
"""Tests with pytest on slices of a device: each worker of pytest-xdist has one of its own. See README.md."""

import json
import os
import subprocess

import pytest

POSTERN = os.environ.get("POSTERN", "postern")


def pytest_addoption(parser):
    group = parser.getgroup("postern")
    group.addoption("--device", help="PCI address of the device, e.g. 0000:00:02.0; without, plain sandboxes")
    group.addoption("--profile", help="postern's profile by name or file")


def launch_options(config):
    options = []
    for name in ("device", "profile"):
        if config.getoption(name):
            options += [f"--{name}", config.getoption(name)]
    return options


def pytest_xdist_auto_num_workers(config):
    """`-n auto`: as many as the profile has slices."""
    profile = config.getoption("profile")
    if not profile:
        return None
    shown = subprocess.run([POSTERN, "profile", "show", profile], check=True, capture_output=True, text=True)
    return json.loads(shown.stdout).get("slices", 1)


@pytest.fixture(scope="session")
def slice_number(request):
    """Workers are called gw0, gw1, …; without xdist there is one."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "gw0")
    return int(worker.removeprefix("gw"))


@pytest.fixture
def on_slice(request, slice_number):
    """Runs a command in a sandbox on this worker's slice, and gives what subprocess.run() gives."""
    options = launch_options(request.config)
    if request.config.getoption("device"):
        # A broker may still be cleaning up after the test before.
        options += ["--slice", str(slice_number), "--wait"]

    def run(*command, **more):
        return subprocess.run([POSTERN, "run", *options, "--", *map(str, command)], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, **more)
    return run
