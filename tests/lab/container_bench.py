#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""container_bench.py [--rounds N] [--reads N] [--crun-ms MS]: what a slice adds to `crun run` and `podman run`, and to the loop inside.

A benchmark: it asserts nothing of the figures. All sides of a table are measured in alternation in one boot. In the lab, where all is
emulated, only ratios say something; least noisy are instructions (lab/run --icount --cpus 1). With --here it measures on this very
machine, without a device: crun alone, and through postern-crun with a container that asks for no slice; its last line is the
--crun-ms for the lab, by which the added time is scaled to that machine: what a slice adds is work, as crun's is.

Under emulation a `podman run` takes 1.5 to 3 s, nearly all of it podman's own, and varies by more than all of crun's work. So what it
spends in the runtime (create, start, delete, and with them the hooks) is taken by itself: a slice adds nothing elsewhere. What a run
leaves to its cleanup in the background has ended before the next begins."""

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
ARGUMENTS.add_argument("--reads", type=int, default=200000, help="in each loop")
ARGUMENTS.add_argument("--crun-ms", type=float, help="a plain crun run on a real machine, in milliseconds: --here's last line")
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


class Runtime:
    """An OCI runtime for podman that notes how long each of its calls takes."""

    def __init__(self, folder, program):
        self.path, self.log = f"{folder}/timed-{os.path.basename(program)}", f"{folder}/calls"
        with open(self.path, "w") as file:
            file.write(f"""#!/bin/sh
begin=$(date +%s%N)
{program} "$@"
status=$?
echo $(($(date +%s%N) - begin)) >>{self.log}
exit $status
""")
        os.chmod(self.path, 0o755)

    def took(self):
        """Of all calls since it was last asked, in milliseconds."""
        with open(self.log) as file:
            total = sum(map(int, file)) / 1e6
        os.unlink(self.log)
        return total


def scaled(runs, side, factor):
    """What `side` adds to crun, the first, where that is `factor` times as fast."""
    print(f"    {side}: {(runs[side] - runs['crun']) / factor:.1f} ms more where crun takes {OPTIONS.crun_ms} ms")


def settle():
    """Returns when nothing of the last run is left."""
    def is_left():
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as file:
                    name, state = file.read().split("(", 1)[1].rsplit(")", 1)
                    if name in ("conmon", "podman", "crun") and state.split()[0] != "Z":
                        return True
            except OSError:
                pass
        return False
    while is_left():
        time.sleep(0.05)


# crun wants cgroup v2 alone, or none; in a mount namespace of our own none is in its way.
ALONE = ["unshare", "-m", "sh", "-c", 'for d in /sys/fs/cgroup/unified; do umount -l "$d" 2>/dev/null; done; exec "$@"', "sh"]
# podman's defaults are beyond what a machine in a machine may set.
PODMAN_RUN = ["run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]


def here(build):
    folder = tempfile.mkdtemp(prefix="bench-", dir="/tmp")
    postern_crun = f"{build}/bin/postern-crun"
    try:
        write(small_bundle(folder), f"{folder}/config.json")

        def one(program):
            count = iter(range(1 << 30))
            return lambda: timed([*ALONE, program, "run", "--bundle", folder, f"bench-{os.getpid()}-{next(count)}"])[0]
        bare = lambda: timed([*ALONE, "true"])[0]  # noqa: E731
        sides = alternate({"(unshare and umount alone)": bare, "crun": one("crun"), "postern-crun, no slice": one(postern_crun)}, OPTIONS.rounds)
        around = statistics.median(sides.pop("(unshare and umount alone)"))
        crun = table("crun run of true(1)", "ms", {name: [figure - around for figure in figures] for name, figures in sides.items()})["crun"]
        print(f"    without unshare and umount around it, {around:.1f} ms")

        podman = ["podman", "--root", f"{folder}/store", "--runroot", f"{folder}/run", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
                  "--events-backend=none"]
        packed = subprocess.run(["tar", "-C", f"{folder}/rootfs", "-c", "."], capture_output=True, check=True).stdout
        subprocess.run([*podman, "import", "-", "bench"], input=packed, capture_output=True, check=True)
        calls, sides = {}, {}

        def run(name, program):
            runtime, calls[name] = Runtime(folder, program), []

            def once():
                settle()
                took = timed([*ALONE, *podman, "--runtime", runtime.path, *PODMAN_RUN, "bench", "/bin/true"])[0]
                calls[name].append(runtime.took())
                return took
            sides[name] = once
        run("crun", "crun")
        run("postern-crun, no slice", postern_crun)
        table("podman run of true(1), all of it", "ms", alternate(sides, OPTIONS.rounds))
        table("podman run of true(1), in the runtime", "ms", {name: figures[1:] for name, figures in calls.items()})
        print(f"\n--crun-ms {crun:.1f}")
    finally:
        subprocess.run(["umount", "-l", f"{folder}/store/vfs"], capture_output=True, check=False)
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
            factor = runs["crun"] / OPTIONS.crun_ms if OPTIONS.crun_ms else None
            if factor:
                scaled(runs, "postern-crun, a slice", factor)

            spec = "/etc/cdi/postern.json"
            os.makedirs("/etc/cdi", exist_ok=True)
            made = lab.postern("cdi", "generate", "-o", spec)
            self.assertEqual(made.returncode, 0, made.stderr)
            self.addCleanup(os.unlink, spec)

            calls = {}

            def podman(runtime, *flags, command=("/bin/true",)):
                return lambda: timed(lab.podman_line(*PODMAN_RUN, *flags, lab.IMAGE, *command, runtime=runtime))

            def counted(name, program, *flags):
                runtime, calls[name] = Runtime(folder, program), []

                def once():
                    settle()
                    took = podman(runtime.path, *flags)()[0]
                    calls[name].append(runtime.took())
                    return took
                return name, once
            device = ["--device", "postern.dev/slice=disk"]
            table("podman run of true(1), all of it", "ms", alternate(dict((
                counted("crun", "crun"), counted("postern-crun, a slice", lab.CRUN, *device), counted("crun, a slice by CDI", "crun", *device))),
                OPTIONS.rounds))
            runs = table("podman run of true(1), in the runtime", "ms", {name: figures[1:] for name, figures in calls.items()})
            if factor:
                for side in list(runs)[1:]:
                    scaled(runs, side, factor)

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
