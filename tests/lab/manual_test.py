#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What README.md and docs/containers.md tell to type, typed: on an installed tree, with systemd as pid 1 and podman as it comes. Only what
stands for the reader's own (IMAGE, ./client, /srv/worker) is made up here. Runs as root in the guest."""

import contextlib
import grp
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
from container_lab import pack_image, wait_until  # noqa: E402

BUILD = os.environ["POSTERN_BUILD"]
BLK = os.environ["LAB_VIRTIO_BLK"]
REPOSITORY = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
CLIENT = f"{BUILD}/examples/virtio-blk-client"
WORK = "/srv/manual"
ALICE = 5
PATIENCE = 300  # seconds
# Where its tests' store is, and the only network that the lab's kernel has.
STORAGE = '[storage]\ndriver = "vfs"\nrunroot = "/run/pods/run"\ngraphroot = "/run/pods/root"\n'
CONTAINERS = '[containers]\nnetns = "none"\n'


def blocks(document, heading):
    """The indented blocks below a heading of a document's, up to the next one of its level: each the list of its lines, joined at \\, without comments."""
    with open(f"{REPOSITORY}/{document}") as file:
        text = file.read()
    level = re.match("#+", heading)[0]
    section = re.split(rf"^{level} ", text[text.index(heading + "\n") + len(heading):], flags=re.M)[0]
    found = re.findall(r"(?:^ {4}.*\n)+", section, flags=re.M)
    joined = [re.sub(r"^ {4}", "", block, flags=re.M).replace("\\\n", " ") for block in found]
    return [[re.sub(r"\s{2,}# .*", "", line).strip() for line in block.splitlines()] for block in joined]


def run(line, user=None, cwd=WORK):
    who = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={grp.getgrnam('ci').gr_gid}"] if user is not None else []
    return subprocess.run([*who, "bash", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=cwd)


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


class Manual(unittest.TestCase):
    maxDiff = None

    def typed(self, line, **kwargs):
        """That it works, and what it says."""
        print(f"    {line}", flush=True)
        result = run(line, **kwargs)
        self.assertEqual(result.returncode, 0, f"{line}\n{result.stdout}{result.stderr}")
        return result.stdout + result.stderr

    def in_image(self, line):
        self.assertIn(" IMAGE ", line)
        return line.replace(" IMAGE ", " localhost/lab ")

    def free(self):
        """Nobody has a slice, and the units are as before."""
        run("systemctl disable --now postern-broker.socket postern-cdi.path; systemctl stop postern-broker.service; postern broker --stop --kill")
        shutil.rmtree("/etc/postern/devices.d", ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/etc/cdi/postern.json")

    def setUp(self):
        self.addCleanup(self.free)


class Readme(Manual):
    """In its own order; each block goes on where the one before has ended. From a machine on which nothing of it was done."""

    def setUp(self):
        super().setUp()
        subprocess.run(["groupdel", "ci"], check=False, capture_output=True)
        with open(f"{BUILD}/install_manifest.txt") as file:
            for installed in file.read().split("\n"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(installed)

    def test_uses(self):
        by_hand, systemd, pool, broker, podman = blocks("README.md", "## Uses")
        *first, client = by_hand
        self.assertIn("cmake --install", first[0])
        for line in first:
            self.typed(line, cwd=REPOSITORY)
        self.assertIn("verified", self.typed(client, cwd=REPOSITORY))

        worker, = systemd
        self.typed(worker)
        self.assertTrue(wait_until(lambda: "20000 verified" in run("journalctl -b --no-pager -o cat").stdout, PATIENCE))

        self.assertTrue(wait_until(lambda: json.loads(run("postern ps --json").stdout) == [], PATIENCE), "its unit has ended")

        everywhere, listed = pool
        self.assertEqual(self.typed(everywhere).count("300 verified"), 4)
        self.assertEqual(self.typed(listed).count("100 verified"), 6)
        with open(f"{WORK}/junit.xml") as file:
            self.assertIn('tests="6"', file.read())

        *configure, member = broker
        for line in configure:
            self.typed(line)
        self.assertIn("300 verified", self.typed(member, user=ALICE))
        stranger = subprocess.run(["setpriv", "--reuid=6", "--regid=6", "--clear-groups", "bash", "-c", member], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=WORK)
        self.assertEqual(stranger.returncode, 125, "who is not in the group")

        generate, own_runtime, stock = podman
        self.typed(generate)
        for line in (own_runtime, stock):
            self.assertIn("20000 verified", self.typed(self.in_image(line)))


class Containers(Manual):
    """docs/containers.md, with podman's defaults: its cgroups are systemd's scopes."""

    def setUp(self):
        super().setUp()
        first, second = blocks("docs/containers.md", "# Containers")[:2]
        *configure, self.check, self.stock, self.own = first + second
        for line in configure:
            self.typed(line)
        self.assertTrue(wait_until(lambda: os.path.exists("/etc/cdi/postern.json"), PATIENCE), "made by the unit")

    def grants(self):
        return json.loads(self.typed("postern ps --json"))

    def pid(self):
        return int(self.typed("podman inspect -f '{{.State.Pid}}' worker"))

    def test_first_lines(self):
        said = self.typed(self.check)
        self.assertRegex(said, r"(?m)^ok +slices for containers: /etc/cdi/postern.json$")
        for line in (self.stock, self.own):
            self.assertIn("20000 verified", self.typed(self.in_image(line)))

    def test_containers_conf(self):
        """The runtime by its name alone, after what the page has for containers.conf."""
        conf, = [block for block in blocks("docs/containers.md", "### postern-crun") if block[0] == "[engine]"]
        write("/etc/containers/containers.conf", CONTAINERS + "\n".join(conf) + "\n")
        self.addCleanup(write, "/etc/containers/containers.conf", CONTAINERS)
        said = self.typed("podman run --rm --runtime postern-crun --device postern.dev/slice=disk.0 localhost/lab /usr/bin/client")
        self.assertIn("20000 verified", said)
        # What does without a cgroup, still does; and a slice is nothing for it.
        self.typed("podman run --rm --runtime postern-crun --cgroups=disabled localhost/lab true")
        refused = run("podman run --rm --runtime postern-crun --cgroups=disabled --device postern.dev/slice=disk.0 localhost/lab true")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("cgroup of its own", refused.stderr)

    def test_hooks_dir(self):
        """Without the specification in /etc/cdi."""
        for line in ("systemctl disable --now postern-cdi.path", "rm /etc/cdi/postern.json"):
            self.typed(line)
        hook, = ["\n".join(block) for block in blocks("docs/containers.md", "### Stock crun and runc") if "precreate" in block[-1]]
        with open(f"{REPOSITORY}/docs/containers.md") as file:
            line, = re.findall(r"`(hooks_dir = .*?)`", file.read())
        another = {"version": "1.0.0", "stages": ["precreate"], "when": {"always": True},
                   "hook": {"path": "/bin/sh", "args": ["sh", "-c", f"touch {WORK}/anothers; cat"]}}
        usual, folder = json.loads(line.split(" = ")[1])
        for path, text in ((f"{folder}/postern.json", hook), (f"{usual}/another.json", json.dumps(another))):
            write(path, text)
            self.addCleanup(os.unlink, path)
        write("/etc/containers/containers.conf", CONTAINERS + f"[engine]\n{line}\n")
        self.addCleanup(write, "/etc/containers/containers.conf", CONTAINERS)
        with open("/etc/postern/devices.d/disk.json") as file:
            config = json.load(file)
        write("/etc/postern/devices.d/disk.json", json.dumps({**config, "trust_annotations": True}))
        said = self.typed("podman run --rm --annotation dev.postern.slice=disk.0 localhost/lab /run/postern/shim /usr/bin/client")
        self.assertIn("20000 verified", said)
        self.assertTrue(os.path.exists(f"{WORK}/anothers"), "podman's own folder of hooks counts as before")

    def life(self, runtime, shim):
        """Restarted by podman, executed in, removed: in a scope of systemd's."""
        words = f"--restart=always --name worker --device postern.dev/slice=disk.1 localhost/lab {shim} /usr/bin/client --reads 1000000000 --report 0.5"
        self.typed(f"podman run -d --cpus 0.2 {runtime} {words}")
        self.addCleanup(run, "podman rm -f -t 0 worker")
        self.assertTrue(wait_until(lambda: len(self.grants()) == 1, PATIENCE))
        first, = self.grants()
        pid = self.pid()
        with open(f"/proc/{pid}/cgroup") as file:
            self.assertRegex(file.read(), r"/machine\.slice/libpod-[0-9a-f]+\.scope")
        self.typed("podman exec worker true")
        # systemd writes the rules of devices of all its cgroups anew: what is open stays open.
        said = "podman logs worker 2>&1 | grep -c completions"
        self.assertTrue(wait_until(lambda: int(run(said).stdout) > 0, PATIENCE))
        self.typed("systemctl daemon-reload")
        before = int(run(said).stdout)
        self.assertTrue(wait_until(lambda: int(run(said).stdout) > before, PATIENCE))
        os.kill(pid, signal.SIGKILL)  # by `podman kill` its user has stopped it
        self.assertTrue(wait_until(lambda: [each["grant"] for each in self.grants()] not in ([], [first["grant"]]), PATIENCE), self.grants())
        second, = self.grants()
        self.assertNotEqual(self.pid(), pid)
        self.assertEqual(second["slice"], first["slice"])
        self.typed("podman rm -f -t 0 worker")
        self.assertTrue(wait_until(lambda: self.grants() == [], PATIENCE), self.grants())

    def test_a_life_by_postern_crun(self):
        self.life("--runtime /usr/local/bin/postern-crun", "")

    def test_the_quadlet(self):
        """As podman's generator (5.4.2's: quadlet -dryrun) makes a unit of the page's; the podman here has none yet."""
        unit = [line for block in blocks("docs/containers.md", "## Quadlet") for line in block]
        self.assertEqual([line for line in unit if line[0] == "["], ["[Unit]", "[Container]", "[Service]", "[Install]"])
        keys = [line.split("=", 1) for line in unit if "=" in line]
        container = {key: value for key, value in keys if key in ("Image", "Exec", "AddDevice", "ReadOnly")}
        self.assertEqual(container["ReadOnly"], "true")
        command = container["Exec"].replace("/usr/bin/worker", "/usr/bin/client --reads 1000000000 --report 0.5")
        run_it = (f"/usr/bin/podman run --name systemd-%N --cidfile=%t/%N.cid --replace --rm --cgroups=split --sdnotify=conmon -d --cpus 0.2 "
                  f"--device {container['AddDevice']} --read-only {container['Image'].replace('worker', 'lab')} {command}")
        remove = "/usr/bin/podman rm -v -f -i --cidfile=%t/%N.cid"
        written = {"Unit": [], "Service": ["Environment=PODMAN_SYSTEMD_UNIT=%n", "KillMode=mixed", f"ExecStop={remove}", f"ExecStopPost=-{remove}",
                                           "Delegate=yes", "Type=notify", "NotifyAccess=all", f"ExecStart={run_it}",
                                           # podman 4.3 leaves that file, and starts nothing beside it; `podman generate systemd` removes it so.
                                           "ExecStartPre=/bin/rm -f %t/%N.cid"]}
        for key, value in keys:
            if key in ("Wants", "After"):
                written["Unit"].append(f"{key}={value}")
            if key == "Restart":
                written["Service"].append(f"{key}={value}")
        write("/run/systemd/system/worker.service", "".join(f"[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in written.items()))
        self.typed("systemctl daemon-reload")
        self.addCleanup(run, "systemctl stop worker.service; rm /run/systemd/system/worker.service; systemctl daemon-reload")
        self.typed("systemctl start worker.service")
        first, = self.grants()
        pid = int(self.typed("podman inspect -f '{{.State.Pid}}' systemd-worker"))
        with open(f"/proc/{pid}/cgroup") as file:
            self.assertIn("/worker.service/", file.read())
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: [each["grant"] for each in self.grants()] not in ([], [first["grant"]]), PATIENCE), self.grants())
        self.typed("systemctl stop worker.service")
        self.assertTrue(wait_until(lambda: self.grants() == [], PATIENCE), self.grants())

    def test_compose(self):
        """As podman-compose (1.0.3) has podman make the page's service."""
        yaml, = blocks("docs/containers.md", "## Compose")
        service = dict(line.split(": ", 1) for line in yaml if ": " in line and not line.startswith("deploy"))
        self.assertEqual((service["read_only"], service["restart"]), ("true", "on-failure"))
        device, = json.loads(service["devices"])
        command = " ".join(json.loads(service["command"])).replace("/usr/bin/worker", "/usr/bin/client")
        self.typed(f"podman create --name=q_worker_1 --read-only --device {device} --restart {service['restart']} localhost/lab {command}")
        self.addCleanup(run, "podman rm -f -t 0 q_worker_1")
        self.assertIn("20000 verified", self.typed("podman start -a q_worker_1"))

    def test_a_life_by_cdi(self):
        self.life("", "/run/postern/shim")


def set_up():
    subprocess.run(["cmake", "--install", BUILD, "--prefix", "/usr/local"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "start", "systemd-journald.service"], check=True)  # which the lab's target leaves out
    subprocess.run(["groupadd", "-f", "ci"], check=True)
    write("/etc/containers/storage.conf", STORAGE)
    write("/etc/containers/containers.conf", CONTAINERS)
    # The reader's own.
    write("/srv/worker", f"#!/bin/sh\nexec {CLIENT}\n", 0o755)
    write(f"{WORK}/run-tests", f"#!/bin/sh\nexec {CLIENT} --reads 300\n", 0o755)
    shutil.copy(f"{WORK}/run-tests", f"{WORK}/client")
    write(f"{WORK}/tests.txt", f"{CLIENT} --reads 100\n" * 6)
    image = pack_image((("usr", "."), ("bin/client", "virtio-blk-client")))
    subprocess.run(["podman", "import", "-", "lab"], input=image, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    shutil.rmtree("/etc/postern", ignore_errors=True)
    set_up()
    unittest.main(verbosity=2)
