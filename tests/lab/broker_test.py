#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`postern broker` as its callers use it: run, pool, ps, revoke. Runs as root in the guest; see tests/lab/README.md."""

import fcntl
import glob
import json
import os
import signal
import socket
import subprocess
import time
import unittest

from broker_lab import (ALICE, BLK, BLK2, BOB, CAROL, CLIENT, EDU, PATIENCE, POSTERN, BrokerLab, Refused, as_user, on_blk, postern, setUpModule,
                        wait_until)
from e2e_test import links_pinned

ALL = [{"allow": [{"users": [ALICE, BOB]}]}]


class Callers(BrokerLab):
    def spawn(self, *args, who=(), flags=(), stdin=subprocess.DEVNULL):
        process = subprocess.Popen([*who, POSTERN, "run", "--broker", self.path, "--device", BLK, *flags, "--", *map(str, args)],
                                   stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def has_live(self, count):
        return wait_until(lambda: len([each for each in self.grants() if each["state"] == "live"]) == count, PATIENCE)

    def test_an_ordinary_user_reads_and_verifies(self):
        self.start_broker(ALL)
        for flags in ([], ["--wait", "irq"]):
            result = self.run_client(CLIENT, "--reads", 2000, *flags, who=as_user(ALICE))
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("2000 verified", result.stdout)
        # Without --profile it is the broker's.
        result = subprocess.run([*as_user(BOB), POSTERN, "run", "--broker", self.path, "--device", BLK, "--", CLIENT, "--reads", "100"],
                                capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.free_again()

    def test_another_device_than_the_profiles_keeps_its_driver(self):
        folder = f"/sys/bus/pci/devices/{BLK2}/"

        def disk():
            """When its driver has found it: each time anew."""
            (path,) = glob.glob(f"{folder}virtio*/block/*/diskseq")
            with open(path) as file:
                return int(file.read())
        postern("unbind", BLK2)
        self.assertTrue(wait_until(lambda: glob.glob(f"{folder}virtio*/block/*/diskseq"), PATIENCE))
        before = disk()
        for profile, status in (("edu", 125), ("virtio-blk-queue", 0)):
            self.start_broker([{"device": BLK2, "profile": profile, "bind": True, "allow": []}])
            result = self.run_client("/bin/true", device=BLK2, profile=profile)
            self.assertEqual(result.returncode, status, result.stderr)
            self.free_again()
            self.stop_broker()
            self.assertTrue(wait_until(lambda: glob.glob(f"{folder}virtio*/block/*/diskseq"), PATIENCE))
            self.assertEqual(disk() == before, status == 125, result.stderr)

    def test_a_reset_with_teardown_programs(self):
        """They find a device whose memory space is off, and fail: that holds up nobody."""
        self.start_broker(ALL)
        client = self.spawn(CLIENT, "--reads", 1000000000, who=as_user(ALICE))
        self.assertTrue(self.has_live(1), self.log())
        with self.client() as caller:
            caller.ask({"op": "revoke", "grant": self.grants()[0]["grant"], "reset": True, "kill": True})
        self.assertNotEqual(client.wait(PATIENCE), 0)
        after = self.run_client(CLIENT, "--reads", 300, who=as_user(BOB), flags=["--wait"])
        self.assertEqual(after.returncode, 0, after.stderr + self.log())
        self.free_again()

    def test_whatever_its_umask(self):
        """A root shell's may be 077: the broker's folder and a grant's cgroup are for its callers all the same."""
        self.start_broker(ALL, umask=0o077)
        client = self.spawn("/bin/sleep", "60", who=as_user(ALICE))
        self.assertTrue(self.has_live(1), self.log())
        with open(f"/proc/{client.pid}/cgroup") as file:
            cgroup = "/sys/fs/cgroup" + file.read().strip().split("::", 1)[1]
        grant = cgroup[:cgroup.index("postern-grant-")] + cgroup[cgroup.index("postern-grant-"):].split("/")[0]
        for folder in (os.path.dirname(self.path), grant):
            self.assertEqual(os.stat(folder).st_mode & 0o777, 0o755, folder)
        client.send_signal(signal.SIGTERM)
        client.wait(PATIENCE)
        self.free_again()

    def test_statuses_are_those_of_run(self):
        self.start_broker(ALL)
        who = as_user(ALICE)
        for command, flags, status in ((["/bin/true"], [], 0), (["/bin/sh", "-c", "exit 3"], [], 3), (["/no/such"], [], 127), (["/etc/passwd"], [], 126),
                                       (["/bin/sh", "-c", "kill -9 $$"], [], 137), (["/bin/sleep", "60"], ["--time-limit", "300ms"], 124)):
            result = self.run_client(*command, who=who, flags=flags)
            self.assertEqual(result.returncode, status, (command, result.stderr))
        client = self.spawn("/bin/sleep", "60", who=who)
        self.assertTrue(self.has_live(1))
        client.send_signal(signal.SIGTERM)
        self.assertEqual(client.wait(PATIENCE), 128 + signal.SIGTERM)
        self.free_again()

    def test_four_users_at_once_and_no_fifth(self):
        self.start_broker(ALL)
        clients = [self.spawn(CLIENT, "--reads", "1000000000", who=as_user(uid)) for uid in (ALICE, BOB, ALICE, BOB)]
        self.assertTrue(self.has_live(4), self.log())
        self.assertEqual(sorted(each["slice"] for each in self.grants()), [0, 1, 2, 3])
        full = self.run_client(who=as_user(ALICE))
        self.assertEqual(full.returncode, 125)
        self.assertIn("no slice is free", full.stderr)
        taken = self.run_client(who=as_user(ALICE), flags=["--slice", "2"])
        self.assertIn("slice 2 is in use", taken.stderr)
        # One waits, and gets the slice of the one that is killed; the others go on.
        waiting = self.spawn(CLIENT, "--reads", "100", who=as_user(ALICE), flags=["--wait"])
        time.sleep(0.5)
        self.assertIsNone(waiting.poll())
        clients[1].kill()
        out, err = waiting.communicate(timeout=PATIENCE)
        self.assertEqual(waiting.returncode, 0, err)
        self.assertIn("100 verified", out)
        self.assertEqual([clients[i].poll() for i in (0, 2, 3)], [None] * 3)

    def test_more_callers_than_one_user_may_have(self):
        """As many containers that start at the same moment: whoever is turned away calls again."""
        self.start_broker(ALL)

        def crowd(child):
            kept = [self.client() for _ in range(32)]
            child.tell("crowded")
            child.hear()
            for each in kept:
                each.close()
            return len(kept)
        first = self.child(crowd, uid=ALICE)
        self.assertEqual(first.hear(), "crowded")
        with self.assertRaisesRegex(Refused, "32 connections"):
            self.child(lambda _: str(self.client()), uid=ALICE).result()
        begin = time.monotonic()
        self.assertEqual(self.run_client(CLIENT, "--reads", "100", who=as_user(BOB)).returncode, 0, "another user, who is let in")
        took = time.monotonic() - begin
        late = self.spawn(CLIENT, "--reads", "100", who=as_user(ALICE))
        time.sleep(min(6, max(1, 2 * took)))  # it has called, and calls for 10 s
        self.assertIsNone(late.poll(), "it calls again")
        first.tell("go")
        self.assertEqual(first.result(), 32)
        out, err = late.communicate(timeout=PATIENCE)
        self.assertEqual(late.returncode, 0, err)
        self.assertIn("100 verified", out)

    def test_who_may_not(self):
        self.start_broker([{"allow": [{"users": [ALICE], "slices": [1]}, {"groups": [7000], "most": 1}]}])
        result = self.run_client(who=as_user(CAROL))
        self.assertEqual(result.returncode, 125)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn(f"uid {CAROL}", result.stderr)
        self.assertEqual(self.run_client(who=as_user(ALICE)).returncode, 0, "the control")
        self.assertIn("may not have slice 0", self.run_client(who=as_user(ALICE), flags=["--slice", "0"]).stderr)
        self.assertEqual(self.run_client(who=as_user(CAROL, groups=[7000])).returncode, 0, "the control, by a supplementary group")
        other = self.run_client(who=as_user(ALICE), device=EDU)
        self.assertEqual(other.returncode, 125)
        wrong = self.run_client(who=as_user(ALICE), profile="edu")
        self.assertIn("has it under profile virtio-blk-queue", wrong.stderr)

    def test_root_uses_the_broker_that_has_the_device(self):
        self.start_broker(ALL)
        self.assertEqual(self.run_client(CLIENT, "--reads", 100).returncode, 0)
        alone = on_blk("--broker", "none", "--", "/bin/true")
        self.assertEqual(alone.returncode, 125, "the broker has the group open")
        self.assertIn("busy", alone.stderr.lower())
        self.stop_broker()
        self.assertEqual(on_blk("--broker", "none", "--", "/bin/true").returncode, 0, "the control")

    def test_the_guard_goes_with_the_broker(self):
        """Also when nobody had anything for so long that it was let go of."""
        self.start_broker(ALL)
        self.assertEqual(self.run_client(CLIENT, "--reads", 100).returncode, 0)
        self.free_again()
        time.sleep(12)
        self.assertServes()
        self.stop_broker()
        self.assertEqual(links_pinned(), [])

    def test_no_broker(self):
        result = subprocess.run([*as_user(ALICE), POSTERN, "run", "--device", BLK, "--profile", "virtio-blk-queue", "--", "/bin/true"],
                                capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(result.returncode, 125)
        self.assertIn("needs root", result.stderr)
        named = self.run_client(who=as_user(ALICE))
        self.assertEqual(named.returncode, 125)
        self.assertIn(self.path, named.stderr)

    def test_revoke(self):
        self.start_broker(ALL)
        script = ("import os,sys,fcntl\nos.write(1,b'ready\\n')\nsys.stdin.readline()\n"
                  "try: fcntl.ioctl(4, 0x3b6b, bytearray(b'\\x18'+b'\\0'*23)); print('allowed')\nexcept OSError as e: print('refused', e.errno)\n")
        client = self.spawn("/usr/bin/python3", "-c", script, who=as_user(ALICE), stdin=subprocess.PIPE)
        self.assertEqual(client.stdout.readline(), "ready\n")
        grant = self.grants()[0]["grant"]
        other = self.child(lambda child: self.client().ask({"op": "revoke", "grant": grant}), uid=BOB)
        with self.assertRaises(Exception) as refused:
            other.result()
        self.assertIn("no live grant", str(refused.exception))
        owner = self.child(lambda child: self.client().ask({"op": "revoke", "grant": grant})[0]["revoked"], uid=ALICE)
        self.assertIn("is refused", owner.result())
        self.assertEqual(client.communicate("\n", timeout=PATIENCE)[0], "refused 1\n")
        control = self.spawn("/usr/bin/python3", "-c", script, who=as_user(ALICE))
        self.assertEqual(control.communicate(timeout=PATIENCE)[0], "ready\nallowed\n")

    def test_a_pool(self):
        """A job server of an ordinary user over the slices of a broker."""
        self.start_broker(ALL)
        jobs = f"{self.folder}/jobs"
        with open(jobs, "w") as file:
            file.write(f"{CLIENT} --reads 200\n" * 12 + "/bin/sh -c 'exit 7'\n")
        summary = f"{self.folder}/summary.json"
        open(summary, "w").close()
        os.chmod(self.folder, 0o777)
        result = subprocess.run([*as_user(ALICE), POSTERN, "pool", "--broker", self.path, "--device", BLK, "--commands", jobs, "--summary", summary],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        self.assertEqual(result.returncode, 7, result.stdout + result.stderr)
        with open(summary) as file:
            told = json.load(file)
        statuses = [job["status"] for job in told["jobs"]]
        self.assertEqual(statuses, [0] * 12 + [7], result.stderr)
        self.assertEqual(result.stdout.count("200 verified"), 12)
        self.free_again()
        # A time limit of a job's, and all slices at once.
        late = subprocess.run([*as_user(ALICE), POSTERN, "pool", "--broker", self.path, "--device", BLK, "--timeout", "500ms", "--", "sleep", ":::", "60", "0"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        self.assertEqual(late.returncode, 124, late.stdout + late.stderr)
        everywhere = subprocess.run([*as_user(ALICE), POSTERN, "pool", "--broker", self.path, "--device", BLK, "--", CLIENT, "--reads", "50"],
                                    stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        self.assertEqual(everywhere.returncode, 0, everywhere.stdout + everywhere.stderr)
        self.assertEqual(everywhere.stdout.count("50 verified"), 4)
        self.free_again()

    def test_a_pool_that_is_interrupted(self):
        self.start_broker(ALL)
        pool = subprocess.Popen([*as_user(ALICE), POSTERN, "pool", "--broker", self.path, "--device", BLK, "--", "/bin/sleep", ":::", *["60"] * 9],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(pool.kill)
        self.assertTrue(self.has_live(4), self.log())
        pool.send_signal(signal.SIGTERM)  # SIGINT is ignored in the lab, as in any shell's background
        pool.communicate(timeout=PATIENCE)
        self.assertNotEqual(pool.returncode, 0)
        self.free_again()
        # And one that is killed leaves nothing either.
        pool = subprocess.Popen([*as_user(ALICE), POSTERN, "pool", "--broker", self.path, "--device", BLK, "--", "/bin/sleep", ":::", *["60"] * 9],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(pool.kill)
        self.assertTrue(self.has_live(4), self.log())
        pool.kill()
        pool.wait()
        self.free_again()

    def test_the_configuration_is_read_anew(self):
        self.start_broker(ALL)
        self.assertEqual(self.run_client(who=as_user(CAROL)).returncode, 125)
        self.write_config([{"allow": [{"users": [CAROL]}]}])
        self.broker.send_signal(signal.SIGHUP)
        self.assertTrue(wait_until(lambda: self.run_client(who=as_user(CAROL)).returncode == 0, PATIENCE), self.log())
        self.assertEqual(self.run_client(who=as_user(ALICE)).returncode, 125)
        self.free_again()

    def test_a_second_broker_and_one_that_is_not_root(self):
        self.start_broker(ALL)
        second = postern("broker", "--config", self.config, "--socket", self.path)
        self.assertEqual(second.returncode, 125)
        self.assertIn("a broker is running already", second.stderr)
        self.assertServes()
        user = subprocess.run([*as_user(ALICE), POSTERN, "broker"], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(user.returncode, 125)
        self.assertIn("needs root", user.stderr)

    def test_nobody_else_keeps_it_from_starting(self):
        """By the lock of an earlier one's folder, which everybody may enter."""
        self.start_broker(ALL)
        self.stop_broker()
        path = f"{self.folder}/run/lock"
        user = subprocess.run([*as_user(ALICE), "flock", "-n", path, "true"], capture_output=True, text=True, timeout=PATIENCE)
        self.assertIn("Permission denied", user.stderr)
        with open(path) as lock:  # the control: root may
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            refused = postern("broker", "--config", self.config, "--socket", self.path)
        self.assertEqual((refused.returncode, "a broker is running already" in refused.stderr), (125, True), refused.stderr)
        self.start_broker()

    def test_a_broker_that_says_nothing_can_be_given_up(self):
        """It answers the first question, and greets nobody after that."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(listener.close)
        path = f"{self.folder}/silent"
        listener.bind(path)
        listener.listen(5)
        launcher = subprocess.Popen([POSTERN, "run", "--broker", path, "--device", BLK, "--", "/bin/true"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(launcher.kill)
        first = listener.accept()[0]
        first.send(b'{"postern": 1, "broker": "x", "nonce": "n"}')
        first.recv(9000)
        first.send(json.dumps({"postern": 1, "devices": [{"device": BLK, "profile": "virtio-blk-queue"}]}).encode())
        second = listener.accept()[0]
        time.sleep(0.5)
        self.assertIsNone(launcher.poll(), "it waits for the greeting")
        launcher.terminate()
        err = launcher.communicate(timeout=PATIENCE)[1]
        self.assertEqual(launcher.returncode, 128 + signal.SIGTERM, err)
        self.assertIn("a signal asked to end", err)
        first.close()
        second.close()

    def test_stop_waits_for_nobody_unless_told(self):
        self.start_broker(ALL)
        client = self.spawn("/bin/sleep", "60", who=as_user(ALICE))
        self.assertTrue(self.has_live(1))
        busy = postern("broker", "--socket", self.path, "--stop")
        self.assertEqual(busy.returncode, 1)
        self.assertIn("there are live grants", busy.stderr)
        self.stop_broker(kill=True)
        self.assertEqual(client.wait(PATIENCE), -signal.SIGKILL)


class UsualSocket(BrokerLab):
    """The commands that look for the broker by themselves, at /run/postern-broker/socket."""

    def setUp(self):
        super().setUp()
        self.path = "/run/postern-broker/socket"

    def test_ps_and_revoke(self):
        self.start_broker(ALL)
        client = subprocess.Popen([*as_user(ALICE), POSTERN, "run", "--device", BLK, "--", "/bin/sleep", "60"], stdin=subprocess.DEVNULL)
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)

        def rows(*who):
            result = subprocess.run([*who, POSTERN, "ps", "--json"], capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(result.returncode, 0, result.stderr)
            return json.loads(result.stdout)
        self.assertTrue(wait_until(lambda: [row["state"] for row in rows()] == ["live"], PATIENCE))
        row = rows()[0]
        self.assertEqual((row["uid"], row["device"], row["slice"], row["profile"]), (ALICE, BLK, 0, "virtio-blk-queue"))
        self.assertTrue(row["clients"])
        self.assertEqual([each["grant"] for each in rows(*as_user(ALICE))], [row["grant"]])
        self.assertEqual(rows(*as_user(BOB)), [])
        self.assertIn(f"{ALICE}", postern("ps").stdout)
        stranger = subprocess.run([*as_user(BOB), POSTERN, "revoke", row["grant"]], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(stranger.returncode, 1)
        self.assertIn("no live grant", stranger.stderr)
        mine = subprocess.run([*as_user(ALICE), POSTERN, "revoke", "--kill", row["grant"]], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(mine.returncode, 0, mine.stderr)
        client.wait(PATIENCE)
        self.assertTrue(wait_until(lambda: rows() == [], PATIENCE))


if __name__ == "__main__":
    unittest.main(verbosity=2)
