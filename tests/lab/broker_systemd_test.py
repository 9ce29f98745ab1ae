#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`postern broker` as its units start it, under a booted systemd: by its first caller, killed, reloaded, stopped. Runs as root in the
guest with systemd as pid 1; see tests/lab/README.md."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
BUILD = os.environ["POSTERN_BUILD"]
BLK = os.environ["LAB_VIRTIO_BLK"]
OTHER = os.environ["LAB_VIRTIO_BLK2"]
REPOSITORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CLIENT = f"{BUILD}/examples/virtio-blk-client"
POSTERN = "/usr/local/bin/postern"
ALICE = 5
SERVICE = "postern-broker.service"
PATIENCE = 300


def run(*words, user=None, timeout=PATIENCE):
    who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user is not None else []
    return subprocess.run([*who, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


def wait_until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def show(name):
    return run("systemctl", "show", "-P", name, SERVICE).stdout.strip()


def grants():
    result = run(POSTERN, "ps", "--json")
    return json.loads(result.stdout) if result.returncode == 0 else None


class Units(unittest.TestCase):
    def tearDown(self):
        # What went wrong is in the journal alone.
        if any(error for _, error in getattr(self._outcome, "errors", []) or []) or (self._outcome.result.failures or self._outcome.result.errors):
            print(run("journalctl", "-b", "--no-pager", "-n", "40", "-u", SERVICE).stdout, file=sys.stderr)
        run(POSTERN, "broker", "--stop", "--kill")
        wait_until(lambda: show("ActiveState") in ("inactive", "active"), 20)

    def spawn(self, *client):
        process = subprocess.Popen(["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", POSTERN, "run", "--device", BLK, "--", *client],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def live(self, count):
        return wait_until(lambda: len([each for each in grants() or [] if each["state"] == "live"]) == count)

    def test_its_first_caller_starts_it(self):
        result = run(POSTERN, "run", "--device", BLK, "--", CLIENT, "--reads", 500, user=ALICE)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("500 verified", result.stdout)
        self.assertEqual(show("ActiveState"), "active")

    def test_killed_again_and_again(self):
        clients = [self.spawn(CLIENT, "--reads", "1000000000") for _ in range(3)]
        self.assertTrue(self.live(3))
        before = sorted(each["grant"] for each in grants())
        for number in range(12):
            pid = int(show("MainPID"))
            if pid != 0:
                os.kill(pid, signal.SIGKILL)
            time.sleep(number % 4 * 0.1)
            if number % 3 == 2:
                visitor = run(POSTERN, "run", "--device", BLK, "--wait", "--", CLIENT, "--reads", 50, user=ALICE)
                self.assertEqual(visitor.returncode, 0, visitor.stdout + visitor.stderr)
        self.assertEqual([each.poll() for each in clients], [None] * 3)
        self.assertTrue(self.live(3))
        self.assertEqual(sorted(each["grant"] for each in grants()), before)
        revoked = run(POSTERN, "revoke", "--kill", before[0])
        self.assertEqual(revoked.returncode, 0, revoked.stderr)
        self.assertTrue(self.live(2))

    def test_reloaded_and_restarted(self):
        client = self.spawn(CLIENT, "--reads", "1000000000")
        self.assertTrue(self.live(1))
        before = grants()[0]["grant"]
        for verb in ("reload", "restart"):
            result = run("systemctl", verb, SERVICE)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertTrue(self.live(1))
            self.assertEqual(grants()[0]["grant"], before)
            self.assertIsNone(client.poll())

    def test_it_is_confined(self):
        said = run("systemd-analyze", "security", "--no-pager", SERVICE)
        exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+) (\w+)", said.stdout)
        self.assertTrue(exposure, said.stdout + said.stderr)
        print(f"systemd-analyze security: {exposure[1]} {exposure[2]}", file=sys.stderr)
        self.assertIn(exposure[2], ("OK", "SAFE"))

    def test_an_unprivileged_stranger(self):
        result = run(POSTERN, "run", "--device", BLK, "--", "/bin/true", user=7)
        self.assertEqual(result.returncode, 125)
        self.assertIn("uid 7", result.stderr)

    def test_a_limit_of_the_callers_unit_holds(self):
        result = run("systemd-run", "--wait", "--pipe", "-q", "-p", f"User={ALICE}", "-p", "TasksMax=8", "--", POSTERN, "run", "--device", BLK, "--", "/bin/sh", "-c",
                     "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait")
        self.assertNotEqual(result.returncode, 0)
        self.assertRegex(result.stderr.lower(), "fork|resource")
        control = run("systemd-run", "--wait", "--pipe", "-q", "-p", f"User={ALICE}", "--", POSTERN, "run", "--device", BLK, "--", "/bin/sh", "-c",
                      "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait")
        self.assertEqual(control.returncode, 0, control.stderr)

    def start_container(self):
        """disk-two, with the slice disk.2."""
        folder = tempfile.mkdtemp(prefix="bundle-", dir="/run")
        self.addCleanup(shutil.rmtree, folder)
        for name in ("bin", "proc", "dev", "sys"):
            os.makedirs(f"{folder}/rootfs/{name}")
        shutil.copy(CLIENT, f"{folder}/rootfs/bin/client")
        self.assertEqual(run("crun", "spec", "--bundle", folder).returncode, 0)
        with open(f"{folder}/config.json") as file:
            config = json.load(file)
        config["process"]["terminal"] = False
        config["process"]["args"] = ["/bin/client", "--reads", "1000000000"]
        config["annotations"] = {"dev.postern.slice": "disk.2"}
        with open(f"{folder}/config.json", "w") as file:
            json.dump(config, file)
        self.addCleanup(run, "crun", "delete", "--force", "disk-two")
        # What it has open the container has, too: no pipe of ours, whose end we would wait for.
        with open(f"{folder}/said", "w+") as said:
            started = subprocess.run(["/usr/local/bin/postern-crun", "--systemd-cgroup", "run", "--detach", "--bundle", folder, "disk-two"],
                                     stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=PATIENCE, check=False)
            said.seek(0)
            self.assertEqual(started.returncode, 0, said.read())

    def test_what_a_broker_on_demand_has_left(self):
        """When the units are enabled beside a container that runs."""
        self.assertEqual(run("systemctl", "stop", "postern-broker.socket", SERVICE).returncode, 0)
        self.addCleanup(run, "systemctl", "start", "postern-broker.socket")
        self.start_container()
        self.assertTrue(wait_until(lambda: not os.path.exists("/run/postern-broker/socket")), "it has ended")
        self.assertEqual(run("systemctl", "start", "postern-broker.socket").returncode, 0)
        self.assertTrue(self.live(1), grants())
        self.assertEqual(grants()[0]["slice"], 2)
        self.assertEqual(show("ActiveState"), "active")
        other = run(POSTERN, "run", "--device", BLK, "--slice", 1, "--", CLIENT, "--reads", 500, user=ALICE)
        self.assertEqual(other.returncode, 0, other.stderr)
        os.kill(int(show("MainPID")), signal.SIGKILL)
        self.assertTrue(self.live(1), grants())
        self.assertEqual(run("systemctl", "reload", SERVICE).returncode, 0)
        self.assertTrue(self.live(1), grants())
        self.assertEqual(show("Result"), "success")
        self.assertEqual(run("crun", "kill", "disk-two", "KILL").returncode, 0)
        self.assertTrue(wait_until(lambda: grants() == []), grants())
        # Nothing is kept any more: the next one is as if there had been no other.
        self.assertEqual(run("systemctl", "restart", SERVICE).returncode, 0)
        self.assertTrue(wait_until(lambda: grants() == []))
        self.assertFalse(os.path.exists("/run/postern-broker/holder.sock"))

    def test_one_by_hand_leaves_nothing_in_the_way(self):
        """It is refused where systemd has the socket, and systemd's own keeps with systemd."""
        by_hand = run(POSTERN, "broker")
        self.assertNotEqual(by_hand.returncode, 0)
        self.assertIn("is running already", by_hand.stderr)
        result = run(POSTERN, "run", "--device", BLK, "--", CLIENT, "--reads", 500, user=ALICE)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(show("ActiveState"), "active")
        self.assertFalse(os.path.exists("/run/postern-broker/holder.sock"))

    def test_a_container(self):
        """Its runtime is the first caller; the broker may be killed beside it, and hears of its end."""
        self.start_container()
        self.assertTrue(self.live(1))
        before = grants()[0]
        self.assertEqual(before["slice"], 2)
        os.kill(int(show("MainPID")), signal.SIGKILL)
        self.assertTrue(self.live(1))
        self.assertEqual(grants()[0]["grant"], before["grant"])
        self.assertEqual(run("systemctl", "daemon-reload").returncode, 0)
        self.assertEqual(run("crun", "kill", "disk-two", "KILL").returncode, 0)
        self.assertTrue(wait_until(lambda: grants() == []), grants())


class Specification(unittest.TestCase):
    """What containers ask for follows the configuration."""
    SPECIFICATION = "/etc/cdi/postern.json"
    OTHER = "/etc/postern/devices.d/other.json"

    def names(self):
        try:
            with open(self.SPECIFICATION) as file:
                return [each["name"] for each in json.load(file)["devices"]]
        except FileNotFoundError:
            return None

    def assertWatches(self):
        """systemd loses what changes while the service that it has started for the last change still runs (systemd.path(5), PathChanged=)."""
        self.assertTrue(wait_until(lambda: run("systemctl", "show", "-P", "SubState", "postern-cdi.path").stdout.strip() == "waiting"))

    def test_it_follows(self):
        enabled = run("systemctl", "start", "postern-cdi.path", "postern-cdi.service")
        self.assertEqual(enabled.returncode, 0, enabled.stderr)
        self.addCleanup(run, "systemctl", "stop", "postern-cdi.path")
        first = self.names()
        self.assertIn("disk.0", first)
        self.assertNotIn("other.0", first)
        self.assertWatches()
        # Whole at once, from the folder beside it.
        with open("/etc/postern/fresh.json", "w") as file:
            json.dump({"postern": 1, "device": OTHER, "profile": "virtio-blk-queue"}, file)
        os.rename(file.name, self.OTHER)
        self.addCleanup(lambda: os.path.exists(self.OTHER) and os.unlink(self.OTHER))
        self.assertTrue(wait_until(lambda: "other.0" in self.names()), run("systemctl", "status", "postern-cdi.service").stdout)
        # A broken one changes nothing, and is seen.
        self.assertWatches()
        with open(self.OTHER, "w") as file:
            file.write("{")
        self.assertTrue(wait_until(lambda: run("systemctl", "is-failed", "postern-cdi.service").returncode == 0))
        self.assertIn("other.0", self.names())
        self.assertWatches()
        os.unlink(self.OTHER)
        self.assertTrue(wait_until(lambda: self.names() == first))
        self.assertEqual(run("systemctl", "daemon-reload").returncode, 0)
        self.assertEqual(self.names(), first)


if __name__ == "__main__":
    for name in ("bin", "libexec", "share"):
        shutil.copytree(f"{BUILD}/{name}", f"/usr/local/{name}", dirs_exist_ok=True)
    shutil.copy(f"{BUILD}/examples/virtio-blk-setup", "/usr/local/libexec/postern/")
    for unit in ("postern-broker.service", "postern-broker.socket", "postern-cdi.path", "postern-cdi.service"):
        shutil.copy(f"{REPOSITORY}/packaging/systemd/{unit}", "/run/systemd/system/")
    os.makedirs("/etc/postern/devices.d", mode=0o755, exist_ok=True)
    with open("/etc/postern/devices.d/disk.json", "w") as file:
        # As configured, too: a broker on demand has nobody's environment.
        backend = {"backend": os.environ["POSTERN_BACKEND"]} if "POSTERN_BACKEND" in os.environ else {}
        json.dump({"postern": 1, "device": BLK, "profile": "virtio-blk-queue", "bind": True, "allow": [{"users": [ALICE]}], **backend}, file)
    subprocess.run(["chmod", "-R", "go-w", "/etc/postern"], check=True)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "start", "postern-broker.socket"], check=True)
    unittest.main(verbosity=2)
