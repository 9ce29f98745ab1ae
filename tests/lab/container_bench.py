#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""container_bench.py [--rounds N] [--reads N] [--crun-ms MS]: what a slice adds to `crun run` and `podman run`, and to the loop inside.

A benchmark: it asserts nothing of the figures. All sides of a table are measured in alternation in one boot. In the lab, where all is
emulated, only ratios say something; --crun-ms is the median of a plain `crun run` on a real machine (--here prints it), by which
the added time is scaled. With --here it measures on this very machine, without a device: crun alone, and through postern-crun with a
container that asks for no slice."""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
ARGUMENTS = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ARGUMENTS.add_argument("--rounds", type=int, default=15)
ARGUMENTS.add_argument("--reads", type=int, default=20000, help="in each loop")
ARGUMENTS.add_argument("--crun-ms", type=float, help="a plain crun run on a real machine, in milliseconds")
ARGUMENTS.add_argument("--here", metavar="BUILD", help="measure on this machine, without a device")
OPTIONS = ARGUMENTS.parse_args()


def table(title, unit, sides, digits=1):
    """`sides`: name → figures, one a round. The first is the measure of the others."""
    print(f"\n{title}\n    {'':38}{'median':>10}{'min':>10}{'max':>10}{'ratio':>8}")
    first = statistics.median(next(iter(sides.values())))
    for name, figures in sides.items():
        middle = statistics.median(figures)
        print(f"    {name:38}{middle:10.{digits}f}{min(figures):10.{digits}f}{max(figures):10.{digits}f}{middle / first:8.2f}   {unit}")
    return {name: statistics.median(figures) for name, figures in sides.items()}


def alternate(sides, rounds):
    """`sides`: name → a function that returns one figure. Each starts once before anything counts."""
    figures = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name, once in sides.items():
            figure = once()
            if round_:
                figures[name].append(figure)
    return figures


def timed(line, **more):
    begin = time.monotonic()
    result = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False, **more)
    took = 1000 * (time.monotonic() - begin)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, line))}: status {result.returncode}\n{result.stdout}{result.stderr}")
    return took, result.stdout


def small_bundle(folder):
    """busybox true, without a cgroup manager's help and without a network."""
    for name in ("bin", "proc", "dev", "sys"):
        os.makedirs(f"{folder}/rootfs/{name}")
    shutil.copy(shutil.which("busybox"), f"{folder}/rootfs/bin/true")
    subprocess.run(["crun", "spec"], cwd=folder, check=True)
    with open(f"{folder}/config.json") as file:
        config = json.load(file)
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/true"]
    return config


def write(config, path):
    with open(path, "w") as file:
        json.dump(config, file)


def here(build):
    folder = tempfile.mkdtemp(prefix="bench-", dir="/tmp")
    try:
        write(small_bundle(folder), f"{folder}/config.json")
        # crun wants cgroup v2 alone, or none; in a mount namespace of our own none is in its way.
        alone = ["unshare", "-m", "sh", "-c", 'for d in /sys/fs/cgroup/unified; do umount -l "$d" 2>/dev/null; done; exec "$@"', "sh"]

        def one(program):
            count = iter(range(1 << 30))
            return lambda: timed([*alone, program, "run", "--bundle", folder, f"bench-{os.getpid()}-{next(count)}"])[0]
        bare = lambda: timed([*alone, "true"])[0]  # noqa: E731
        sides = alternate({"(unshare and umount alone)": bare, "crun": one("crun"), "postern-crun, no slice": one(f"{build}/bin/postern-crun")},
                          OPTIONS.rounds)
        base = sides.pop("(unshare and umount alone)")
        table("crun run of true(1), with what stands around it", "ms", sides)
        print(f"    of which {statistics.median(base):.1f} ms are unshare and umount")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def in_the_lab():
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import container_lab as lab

    class Bench(lab.ContainerLab):
        def test_cost(self):
            self.start_broker()
            folder = tempfile.mkdtemp(prefix="bundle-", dir=self.folder)
            config = small_bundle(folder)
            write(config, f"{folder}/config.json")
            write({**config, "annotations": {"dev.postern.slice": "disk"}}, f"{folder}/slice.json")

            def crun(program, name):
                return lambda: timed([program, "run", "--bundle", folder, "--config", f"{folder}/{name}", f"b{time.monotonic_ns()}"])[0]
            runs = table("crun run of true(1)", "ms", alternate({
                "crun": crun("crun", "config.json"), "postern-crun, no slice": crun(lab.CRUN, "config.json"),
                "postern-crun, a slice": crun(lab.CRUN, "slice.json"),
                "postern run, a slice": lambda: timed([lab.POSTERN, "run", "--quiet", "--device", lab.BLK, "--", "/bin/true"])[0]}, OPTIONS.rounds))
            if OPTIONS.crun_ms:
                factor = runs["crun"] / OPTIONS.crun_ms
                added = (runs["postern-crun, a slice"] - runs["crun"]) / factor
                print(f"    crun takes {factor:.1f} times as long here as where it takes {OPTIONS.crun_ms} ms; by that a slice adds {added:.1f} ms there")

            spec = "/etc/cdi/postern.json"
            os.makedirs("/etc/cdi", exist_ok=True)
            made = lab.postern("cdi", "generate", "-o", spec)
            self.assertEqual(made.returncode, 0, made.stderr)
            self.addCleanup(os.unlink, spec)

            def podman(runtime, *flags, command=("/bin/true",)):
                return lambda: timed(lab.podman_line("run", "--rm", "--network", "none", *flags, lab.IMAGE, *command, runtime=runtime))
            device = ["--device", "postern.dev/slice=disk"]
            table("podman run of true(1)", "ms", alternate({
                "crun": lambda: podman("crun")()[0], "postern-crun, a slice": lambda: podman(lab.CRUN, *device)()[0],
                "crun, a slice by CDI": lambda: podman("crun", *device)()[0]}, OPTIONS.rounds))

            client = ["/bin/virtio-blk-client", "--reads", str(OPTIONS.reads)]

            def rate(run):
                told = run()[1]
                return float(re.search(r"([0-9.]+) reads/s", told)[1])
            table("verified reads of 4 KiB at depth 32", "a second", alternate({
                "postern run": lambda: rate(lambda: timed([lab.POSTERN, "run", "--quiet", "--device", lab.BLK, "--", lab.CLIENT, *client[1:]])),
                "container, postern-crun": lambda: rate(podman(lab.CRUN, *device, command=client)),
                "container, CDI": lambda: rate(podman("crun", *device, command=["/run/postern/shim", *client]))}, max(3, OPTIONS.rounds // 3)), 0)

    Bench.__module__ = "__main__"
    lab.setUpModule()
    try:
        result = lab.unittest.TextTestRunner().run(Bench("test_cost"))
    finally:
        lab.tearDownModule()
    sys.exit(0 if result.wasSuccessful() else 1)


if __name__ == "__main__":
    if OPTIONS.here:
        here(os.path.abspath(OPTIONS.here))
    else:
        in_the_lab()
