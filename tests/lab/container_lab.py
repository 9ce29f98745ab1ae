#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the tests of containers share: podman and crun in the guest, an image with the static test clients, a device whose slices are
named in /etc/postern/devices.d, and a look at what is left afterwards."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
import unittest

from broker_lab import Client
from e2e_test import BLK, BLK2, BUILD, CLIENT, EDU, POSTERN, driver, postern, processes, wait_until
from e2e_test import left_behind as left_of_launches

# Whoever tests imports it all from here.
__all__ = ["BLK", "BLK2", "BUILD", "CLIENT", "CONFIG", "CRUN", "EDU", "HOOK", "IMAGE", "POSTERN", "SOCKET", "ContainerLab", "driver",
           "left_behind", "make_image", "pack_image", "postern", "processes", "setUpModule", "tearDownModule", "wait_until"]

CRUN = f"{BUILD}/bin/postern-crun"
HOOK = f"{BUILD}/bin/postern-oci-hook"
PROBE = f"{BUILD}/tests/container-probe"
SOCKET = "/run/postern-broker/socket"
CONFIG = "/etc/postern/devices.d"
IMAGE = "lab"
STORE = "/run/pods"
# podman's own choice is systemd's, where that runs.
CGROUPS = os.environ.get("POSTERN_CGROUPS", "cgroupfs")
# As configured: a hook's environment is what its CDI spec says, and nothing of the caller's.
BACKEND = {"backend": os.environ["POSTERN_BACKEND"]} if "POSTERN_BACKEND" in os.environ else {}
APPLETS = ("sh", "cat", "echo", "env", "id", "kill", "ls", "ps", "readlink", "sleep", "true")
PATIENCE = 300  # seconds


def left_behind():
    """But for what is podman's, and the cgroup of brokers on demand, which stays as the socket's folder does."""
    left = left_of_launches()
    left["cgroups"] = [folder for folder in left["cgroups"] if folder != "/sys/fs/cgroup/postern-broker"]
    left["mounts"] = [folder for folder in left["mounts"] if not folder.startswith(STORE)]
    return left


def podman_line(*args, runtime=CRUN):
    return ["podman", "--root", f"{STORE}/root", "--runroot", f"{STORE}/run", "--storage-driver", "vfs", "--cgroup-manager", CGROUPS,
            "--events-backend=none", "--runtime", runtime, *map(str, args)]


def fill_root(add):
    """`add(name, mode, data or link's target)` for each file of a root file system with busybox and the clients."""
    with open("/usr/bin/busybox" if os.path.exists("/usr/bin/busybox") else "/bin/busybox", "rb") as file:
        add("bin/busybox", 0o755, file.read())
    for name in APPLETS:
        add(f"bin/{name}", None, "busybox")
    for path in (CLIENT, PROBE, f"{BUILD}/examples/hostile-client"):
        with open(path, "rb") as file:
            add(f"bin/{os.path.basename(path)}", 0o755, file.read())
    add("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nworker:x:1000:1000::/:/bin/sh\n")
    add("etc/group", 0o644, b"root:x:0:\nworker:x:1000:\n")


def pack_image(links=()):
    """A tar file. `links`: (name, target) of symbolic links that stand in the image instead of what they name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "evil", "run"):
            if folder in dict(links):
                continue
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for link, target in links:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)

        def add(name, mode, data):
            entry = tarfile.TarInfo(name)
            if mode is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, data
                tar.addfile(entry)
            else:
                entry.mode, entry.size = mode, len(data)
                tar.addfile(entry, io.BytesIO(data))
        fill_root(add)
    return packed.getvalue()


def make_image(name=IMAGE, links=()):
    """In the tests' own store, of pack_image(links)."""
    made = subprocess.run(podman_line("import", "-", name), input=pack_image(links), capture_output=True, check=False)
    if made.returncode != 0:
        raise RuntimeError(made.stderr.decode())


def setUpModule():
    bound = postern("bind", BLK)
    if bound.returncode != 0:
        raise RuntimeError(bound.stderr)
    make_image()


def tearDownModule():
    postern("unbind", BLK)


class ContainerLab(unittest.TestCase):
    """Each test has the slices disk.0 … disk.3, no broker unless it starts one, and leaves nothing behind."""
    maxDiff = None

    def setUp(self):
        self.before = left_behind()
        self.folder = tempfile.mkdtemp(prefix="containers-", dir="/run")
        self.broker = None
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.look_behind)
        self.addCleanup(shutil.rmtree, CONFIG, ignore_errors=True)
        self.addCleanup(self.end_broker)
        self.addCleanup(self.remove_containers)
        self.write_config([{"name": "disk"}])

    def look_behind(self):
        wait_until(lambda: self.before == left_behind(), PATIENCE)
        self.assertEqual(self.before, left_behind(), self.broker_log())

    def write_config(self, devices):
        """A file for each of `devices`: "name", and the rest as docs/broker.md has it."""
        shutil.rmtree(CONFIG, ignore_errors=True)
        os.makedirs(CONFIG, mode=0o755)
        for device in devices:
            entry = {"postern": 1, "device": BLK, "profile": "virtio-blk-queue", "trust_annotations": True, **BACKEND, **device}
            with open(f"{CONFIG}/{entry.pop('name')}.json", "w") as file:
                json.dump(entry, file)

    # ---- the broker: none, and one on demand, unless a test starts one that stays

    def start_broker(self):
        with open(f"{self.folder}/broker.log", "ab") as log:
            self.broker = subprocess.Popen([POSTERN, "broker"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.assertTrue(wait_until(lambda: self.broker.poll() is not None or self.grants() is not None, PATIENCE), self.broker_log())
        self.assertIsNone(self.broker.poll(), self.broker_log())

    def broker_log(self):
        said = ""
        for path in (f"{self.folder}/broker.log", "/run/postern-broker/on-demand.log"):
            with contextlib.suppress(OSError), open(path, errors="replace") as file:
                said += file.read()
        return said

    def end_broker(self):
        if os.path.exists(SOCKET):
            ended = postern("broker", "--stop", "--kill")
            nobody = ["no broker", "Connection refused", "No such file"]
            if self.broker is None:  # one on demand, which goes by itself
                nobody.append("has gone away")
            self.assertTrue(ended.returncode == 0 or any(words in ended.stderr for words in nobody), ended.stderr + self.broker_log())
        if self.broker is not None:
            self.broker.wait(PATIENCE)
            self.broker = None

    def grants(self):
        """What `postern ps` shows; with a broker that ended, what its successor takes up."""
        try:
            with Client(SOCKET) as client:
                return client.grants()
        except (FileNotFoundError, ConnectionRefusedError, EOFError):
            return None

    def kept(self):
        """The grants; by another broker on demand if the last one has gone."""
        for _ in range(20):
            found = self.grants()
            if found is not None:
                return found
            broker = subprocess.Popen([POSTERN, "broker", "--on-demand"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(broker.wait)
            wait_until(lambda broker=broker: broker.poll() is not None or self.grants() is not None, PATIENCE)
        return self.fail(f"no broker stays: {self.broker_log()}")

    def assertFree(self, seconds=PATIENCE):
        """No broker, or one without grants. A broker on demand that goes away keeps grants only of containers that run."""
        self.assertTrue(wait_until(lambda: not self.grants() and not self.running(), seconds), f"{self.grants()} {self.broker_log()}")

    def running(self):
        return processes("virtio-blk-client")

    # ---- podman

    def podman(self, *args, runtime=CRUN, timeout=PATIENCE, **kwargs):
        return subprocess.run(podman_line(*args, runtime=runtime), stdin=kwargs.pop("stdin", subprocess.DEVNULL), capture_output=True,
                              text=True, timeout=timeout, check=False, **kwargs)

    def run_line(self, *command, slice="disk.1", flags=(), verb="run", image=IMAGE):
        """The words behind `podman`, for a container with a slice (None: without)."""
        wants = ["--annotation", f"dev.postern.slice={slice}"] if slice else []
        return [verb, "--network", "none", *wants, *map(str, flags), image, *map(str, command)]

    def run_in(self, *command, runtime=CRUN, timeout=PATIENCE, **kwargs):
        """podman run: a container that ends by itself and is removed."""
        line = self.run_line(*command, **{**kwargs, "flags": ["--rm", *kwargs.get("flags", ())]})
        return self.podman(*line, runtime=runtime, timeout=timeout)

    def start(self, name, *command, **kwargs):
        """podman run -d; what it says is in a file, too, for a call of podman takes a second here. It spins on a fifth of a CPU."""
        self.drop_log(name)
        flags = ["-d", "--name", name, "--cpus", "0.2", "--log-driver", "k8s-file", "--log-opt", f"path={self.folder}/{name}.log"]
        started = self.podman(*self.run_line(*command, **{**kwargs, "flags": [*flags, *kwargs.get("flags", ())]}))
        self.assertEqual(started.returncode, 0, started.stderr + self.broker_log())
        return started.stdout.strip()

    def drop_log(self, name):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/{name}.log")

    def said(self, name):
        """By a container of start()."""
        with contextlib.suppress(FileNotFoundError), open(f"{self.folder}/{name}.log", errors="replace") as file:
            return file.read()
        return ""

    def logs(self, name):
        return self.podman("logs", name).stdout

    def inspect(self, name, what):
        return self.podman("inspect", "--format", what, name).stdout.strip()

    def pid_of(self, name):
        return int(self.inspect(name, "{{.State.Pid}}") or 0)

    def remove_containers(self):
        """Only if there are any, for each call of podman takes a while here."""
        with contextlib.suppress(FileNotFoundError), open(f"{STORE}/root/vfs-containers/containers.json") as file:
            if json.load(file) == []:
                return
        self.podman("rm", "-a", "-f", "-t", "0")

    def read_probe(self, result):
        """What container-probe, which ran first, has told; and the rest of the output."""
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr + self.broker_log())
        first, _, rest = result.stdout.replace("\r", "").partition("\n")
        return json.loads(first), rest

    # ---- crun alone

    @contextlib.contextmanager
    def bundle(self, *command, slice="disk.1", change=None):
        """A bundle for `crun run`, with its own root file system."""
        folder = tempfile.mkdtemp(prefix="bundle-", dir=self.folder)
        for name in ("bin", "etc", "tmp", "proc", "dev", "sys", "run"):
            os.makedirs(f"{folder}/rootfs/{name}")

        def add(name, mode, data):
            path = f"{folder}/rootfs/{name}"
            if mode is None:
                os.symlink(data, path)
                return
            with open(path, "wb") as file:
                file.write(data)
            os.chmod(path, mode)
        fill_root(add)
        subprocess.run(["crun", "spec"], cwd=folder, check=True)
        with open(f"{folder}/config.json") as file:
            config = json.load(file)
        config["process"]["terminal"] = False
        config["process"]["args"] = list(map(str, command))
        if slice:
            config["annotations"] = {"dev.postern.slice": slice}
        if change:
            change(config)
        with open(f"{folder}/config.json", "w") as file:
            json.dump(config, file)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def crun(self, *args, timeout=PATIENCE, program=CRUN, **kwargs):
        return subprocess.run([program, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                              check=False, **kwargs)


class Reader(threading.Thread):
    """Reads a file's lines as they come, so that nobody is held up by a full pipe."""

    def __init__(self, file):
        super().__init__(daemon=True)
        self.file, self.lines = file, []
        self.start()

    def run(self):
        for line in self.file:
            self.lines.append((time.monotonic(), line.rstrip("\r\n")))
