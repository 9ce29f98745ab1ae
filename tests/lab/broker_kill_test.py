#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`postern broker` is killed with SIGKILL at random moments, again and again, while its clients are in their hot loops and others
come and go. Runs as root in the guest; see tests/lab/README.md. POSTERN_BROKER_KILLS: how often; POSTERN_BROKER_SEED: which moments."""

import os
import random
import re
import signal
import subprocess
import threading
import time
import unittest

from broker_lab import ALICE, BLK, BLK2, BOB, CLIENT, PATIENCE, POSTERN, BrokerLab, as_user, postern, wait_until

KILLS = int(os.environ.get("POSTERN_BROKER_KILLS", "25"))
SEED = int(os.environ.get("POSTERN_BROKER_SEED", "0")) or int(time.time())
PACE = 0.6  # seconds for a round, on the average
DEVICES = [{"name": "steady", "device": BLK, "allow": [{"users": [ALICE]}]},
           {"name": "busy", "device": BLK2, "allow": [{"users": [ALICE, BOB]}]}]


class Visitors(threading.Thread):
    """One user who has one client after another on the second device, each of which verifies what it reads."""

    def __init__(self, test, uid):
        super().__init__(daemon=True)
        self.test, self.uid = test, uid
        self.served, self.failed, self.shortest = 0, [], PATIENCE
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            begin = time.monotonic()
            result = self.test.run_client(CLIENT, "--reads", 50, who=as_user(self.uid), device=BLK2, flags=["--wait"], timeout=300)
            if result.returncode == 0 and "50 verified" in result.stdout:
                self.served += 1
                self.shortest = min(self.shortest, time.monotonic() - begin)
            else:
                self.failed.append((result.returncode, result.stdout, result.stderr))

    def end(self):
        self.over.set()
        self.join(300)


class Killed(BrokerLab):
    def steady(self):
        """Four clients of four slices that read until they are told to end."""
        clients = []
        for number in range(4):
            client = subprocess.Popen(["nice", *as_user(ALICE), POSTERN, "run", "--broker", self.path, "--device", BLK, "--", CLIENT, "--reads",
                                       "1000000000", *(["--wait", "irq", "--depth", "2"] if number else [])], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.addCleanup(client.wait)
            self.addCleanup(client.kill)
            clients.append(client)
        self.assertTrue(wait_until(lambda: len(self.live(BLK)) == 4, PATIENCE), self.log())
        return clients

    def live(self, device=None):
        with self.client() as client:
            return [each for each in client.grants() if each["state"] == "live" and device in (None, each["device"])]

    def spawn(self):
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(["nice", "-n", "-15", POSTERN, "broker", "--config", self.config, "--socket", self.path], stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=log)

    def test_at_random_moments(self):
        print(f"{KILLS} kills, POSTERN_BROKER_SEED={SEED}", flush=True)
        dice = random.Random(SEED)
        self.start_broker(DEVICES)
        clients = self.steady()
        before = {each["grant"]: (each["slice"], each["pid"]) for each in self.live(BLK)}
        visitors = [Visitors(self, ALICE), Visitors(self, BOB)]
        for each in visitors:
            self.addCleanup(each.end)
            each.start()
        # Most die while they begin, every fifth has time for a grant: as this machine is fast when it has time.
        self.assertTrue(wait_until(lambda: all(each.served for each in visitors), PATIENCE), self.log())
        restart = PATIENCE
        for _ in range(3):
            self.kill9()
            start = time.monotonic()
            self.broker = self.spawn()
            self.live()
            restart = min(restart, time.monotonic() - start)
        visit = min(each.shortest for each in visitors)
        print(f"a restart takes {restart:.2f} s, a visit {visit:.2f} s", flush=True)
        begin = time.monotonic()
        for number in range(KILLS):
            long = number % 5 == 0
            moment = dice.uniform(0, restart + (visit if long else 0))
            # Where others want the CPUs too, the moments become earlier ones, not fewer; every fifth stays what it is.
            late = time.monotonic() - begin > PACE * (number + 1)
            time.sleep(moment / 4 if late and not long else moment)
            self.kill9()
            self.broker = self.spawn()
            self.assertEqual([each.poll() for each in clients], [None] * 4, f"a client ended in round {number}")
            if number % 100 == 99:
                print(f"{number + 1} kills, {time.monotonic() - begin:.0f} s, {sum(each.served for each in visitors)} visitors", flush=True)
        self.kill9()
        self.start_broker()
        for each in visitors:
            each.end()
            self.assertEqual(each.failed, [])
            self.assertGreater(each.served, 0)
        # Who had a slice has it, and the visitors' are free again.
        self.assertTrue(wait_until(lambda: {each["grant"] for each in self.live()} == set(before), PATIENCE), self.log())
        self.assertEqual({each["grant"]: (each["slice"], each["pid"]) for each in self.live()}, before)
        # None was lost: all four of the second device can be had, and no fifth.
        holders = [self.holder({"device": BLK2, "wait": True}, uid=BOB) for _ in range(4)]
        self.assertEqual(sorted(each.answer["slice"] for each in holders), [0, 1, 2, 3])
        full = self.run_client(device=BLK2, who=as_user(BOB))
        self.assertEqual((full.returncode, "no slice is free" in full.stderr), (125, True), full.stderr)
        for each in holders:
            each.kill()
        # A grant from before all this is revoked on demand, and it is that client's end, of no other.
        victim = next(iter(before))
        with self.client() as client:
            self.assertIn("processes are killed", client.ask({"op": "revoke", "grant": victim, "kill": True})[0]["revoked"])
        self.assertTrue(wait_until(lambda: any(each.poll() is not None for each in clients), PATIENCE))
        time.sleep(5)
        gone = [each for each in clients if each.poll() is not None]
        self.assertEqual(len(gone), 1)
        # The others had read all the time, and everything was what it had to be.
        for each in clients:
            if each not in gone:
                each.send_signal(signal.SIGTERM)
        for each in clients:
            output = each.communicate(timeout=PATIENCE)[0]
            if each not in gone:
                self.assertEqual(each.returncode, 128 + signal.SIGTERM, output)
            self.assertNotIn("mismatch", output)
        self.assertTrue(wait_until(lambda: not self.live(), PATIENCE), self.log())
        print(f"{KILLS} kills in {time.monotonic() - begin:.0f} s; {sum(each.served for each in visitors)} visitors served", flush=True)

    def test_an_upgrade_is_the_same_thing(self):
        """SIGHUP: what is kept goes on in the program that is there now. SIGTERM and a new start: likewise."""
        self.start_broker(DEVICES)
        clients = self.steady()
        before = {each["grant"] for each in self.live()}
        for _ in range(5):
            self.broker.send_signal(signal.SIGHUP)
            result = self.run_client(CLIENT, "--reads", 50, who=as_user(BOB), device=BLK2)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIsNone(self.broker.poll(), "the same process")
        for _ in range(3):
            self.broker.terminate()
            self.assertEqual(self.broker.wait(PATIENCE), 0, self.log())
            self.start_broker()
            with self.client() as client:
                grants = client.grants()
            self.assertEqual({each["grant"] for each in grants if each["state"] == "live"}, before, f"{grants}\n{self.log()}\n{[each.poll() for each in clients]}")
        self.assertEqual([each.poll() for each in clients], [None] * 4)
        for each in clients:
            each.terminate()
            each.communicate(timeout=PATIENCE)
        self.assertTrue(wait_until(lambda: not self.live(), PATIENCE), self.log())

    def test_a_client_that_ends_while_there_is_no_broker(self):
        """Its slice is cleaned and free when there is one again."""
        self.start_broker(DEVICES)
        holders = [self.holder({"device": BLK}, uid=ALICE) for _ in range(4)]
        self.kill9()
        holders[2].kill()
        self.start_broker()
        self.assertTrue(wait_until(lambda: len(self.live()) == 3, PATIENCE), self.log())
        result = self.run_client(CLIENT, "--reads", 50, who=as_user(ALICE), flags=["--wait"])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"slice 2: 50 reads of 4 KiB, 50 verified")

    def test_callers_wait_for_the_next_broker(self):
        self.start_broker(DEVICES)
        self.kill9()
        waiting = subprocess.Popen([*as_user(ALICE), POSTERN, "run", "--broker", self.path, "--device", BLK, "--", CLIENT, "--reads", "50"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(waiting.kill)
        time.sleep(1)
        self.assertIsNone(waiting.poll())
        self.start_broker()
        out, err = waiting.communicate(timeout=PATIENCE)
        self.assertEqual(waiting.returncode, 0, err)
        self.assertTrue(re.search(r"50 verified", out), out)


def setUpModule():
    for device in (BLK, BLK2):
        bound = postern("bind", device)
        if bound.returncode != 0:
            raise RuntimeError(bound.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
