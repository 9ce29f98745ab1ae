#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""subids_test.py BUILD: sandboxes with more than one user id, as root and as an ordinary user.

/etc/passwd, /etc/subuid and /etc/subgid are this test's own, bound over the machine's."""

import json
import os
import shutil
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import small_world
import rootless_test
from rootless_test import AS_USER, ENV, POSTERN, USER

CALLERS = {"root": {"cwd": "/"}, "user": AS_USER}
FILES = "/var/tmp/etc"
PROFILE = "/var/tmp/ids.json"
GRANTED = {"root": 200000, "user": 300000}
IDS = 65536
MAP = ["--", "/bin/sh", "-c", "cat /proc/self/uid_map; echo; cat /proc/self/gid_map; echo; cat /proc/self/setgroups"]
#: What a client needs to become its other users.
ALL = ["--quiet", "--uid", "0", "--gid", "0", "--cap-add", "setuid", "--cap-add", "setgid", "--cap-add", "chown"]


def grant(*lines):
    for name in ("subuid", "subgid"):
        with open(f"{FILES}/{name}", "w") as file:
            file.write("".join(line + "\n" for line in lines))


def numbers(text):
    return [sorted([int(word) for word in line.split()] for line in part.strip().splitlines()) for part in text.split("\n\n")]


class Ids(unittest.TestCase):
    def setUp(self):
        grant(f"root:{GRANTED['root']}:{IDS}", f"other:500000:{IDS}", f"tester:{GRANTED['user']}:{IDS}")

    def launch(self, caller, *words, **more):
        return subprocess.run([POSTERN, "run", *words], capture_output=True, text=True, env=ENV, timeout=60,
                              **{"stdin": subprocess.DEVNULL, **CALLERS[caller], **more})

    def assertSays(self, caller, out, *words, **more):
        result = self.launch(caller, *words, **more)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, out, ""))

    def assertRefused(self, caller, says, *words, **more):
        result = self.launch(caller, *words, **more)
        self.assertEqual((result.returncode, result.stdout), (125, ""), result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertIn(says, result.stderr)

    def profile(self, **user):
        with open(PROFILE, "w") as file:
            json.dump({"postern": 1, "sandbox": {"user": user}}, file)
        return ["--profile", PROFILE]

    def map_of(self, caller, *words):
        result = self.launch(caller, *words, *MAP)
        self.assertEqual(result.returncode, 0, result.stderr)
        text, _, setgroups = result.stdout.rpartition("\n\n")
        return *numbers(text), setgroups.strip()

    def test_the_map_of_an_ordinary_user(self):
        first = GRANTED["user"]
        # The control: one id.
        self.assertEqual(self.map_of("user"), ([[65534, USER, 1]], [[65534, USER, 1]], "deny"))
        around = [[0, first, 65534], [65534, USER, 1], [65535, first + 65534, 2]]
        self.assertEqual(self.map_of("user", "--subids"), (around, around, "allow"))
        self.assertEqual(self.map_of("user", *self.profile(subids=True)), (around, around, "allow"))
        below, above = [[0, USER, 1], [1, first, IDS]], [[0, first, 5], [5, USER, 1], [6, first + 5, IDS - 5]]
        self.assertEqual(self.map_of("user", "--subids", "--uid", "0", "--gid", "5"), (below, above, "allow"))

    def test_the_map_of_root(self):
        self.assertEqual(self.map_of("root"), ([[65534, 65534, 1]], [[65534, 65534, 1]], "allow"))
        whole = [[0, GRANTED["root"], IDS]]
        for flags in ([], ["--uid", "0", "--gid", "0"]):
            self.assertEqual(self.map_of("root", "--subids", *flags), (whole, whole, "allow"), flags)

    def test_several_ranges(self):
        grant("tester:300000:10", f"{USER}:400000:10")
        both = [[0, USER, 1], [1, 300000, 10], [11, 400000, 10]]
        self.assertEqual(self.map_of("user", "--subids", "--uid", "0", "--gid", "0"), (both, both, "allow"))

    def test_files_are_whose_they_are(self):
        os.mkdir("/var/tmp/shared")
        self.addCleanup(shutil.rmtree, "/var/tmp/shared")
        os.chmod("/var/tmp/shared", 0o777)
        script = "cd /mnt; touch first; touch second; chown 7:8 second; stat -c '%u %g' first second; " \
                 "setpriv --reuid 9 --regid 10 --clear-groups touch third; stat -c '%u %g' third; stat -c %u /etc/passwd"
        for caller, own in (("user", USER), ("root", GRANTED["root"])):
            with self.subTest(caller):
                self.assertSays(caller, "0 0\n7 8\n9 10\n65534\n", *ALL, "--subids", "--bind", "/var/tmp/shared", "/mnt", "--", "/bin/sh", "-c", script)
                offset = GRANTED[caller] - (1 if caller == "user" else 0)
                outside = [(os.stat(f"/var/tmp/shared/{name}").st_uid, os.stat(f"/var/tmp/shared/{name}").st_gid) for name in ("first", "second", "third")]
                self.assertEqual(outside, [(own, own), (offset + 7, offset + 8), (offset + 9, offset + 10)])
                for name in ("first", "second", "third"):
                    os.remove(f"/var/tmp/shared/{name}")
        # The control: of one id alone there is no other user.
        result = self.launch("user", *ALL, "--bind", "/var/tmp/shared", "/mnt", "--", "/bin/sh", "-c", "touch /mnt/f; chown 7 /mnt/f")
        self.assertIn("Invalid argument", result.stderr)

    def test_root_inside_is_nobody_outside(self):
        os.mkdir("/var/tmp/roots", 0o700)
        self.addCleanup(shutil.rmtree, "/var/tmp/roots")
        look = ["--bind", "/var/tmp/roots", "/mnt", "--", "/bin/sh", "-c", "touch /mnt/file 2>/dev/null && echo made || echo refused"]
        every = [word for name in ("dac_override", "dac_read_search", "fowner") for word in ("--cap-add", name)]
        self.assertSays("root", "made\n", "--quiet", "--uid", "0", "--gid", "0", *look)
        self.assertSays("root", "refused\n", *ALL, *every, "--subids", *look)
        # With it comes no weakening but those that were said.
        self.assertIn("root to the files", self.launch("root", "--uid", "0", "--", "/bin/true").stderr)
        self.assertEqual(self.launch("root", "--subids", "--uid", "0", "--", "/bin/true").stderr, "")

    def test_supplementary_groups_are_gone(self):
        groups = ["--", "/bin/sh", "-c", "grep ^Groups: /proc/self/status"]
        with_groups = {"extra_groups": [4, 27]}
        self.assertNotEqual(self.launch("user", *groups, **with_groups).stdout.split(), ["Groups:"])
        self.assertEqual(self.launch("user", "--subids", *groups, **with_groups).stdout.split(), ["Groups:"])
        self.assertEqual(self.launch("root", "--subids", *groups, **with_groups).stdout.split(), ["Groups:"])

    def test_maps_of_a_profile(self):
        first = GRANTED["user"]
        maps = [[0, USER, 1], [10, first + 5, 20]]
        self.assertEqual(self.map_of("user", *self.profile(uid=0, gid=0, uid_map=maps, gid_map=maps)), (maps, maps, "allow"))
        self.assertEqual(self.map_of("root", "--quiet", *self.profile(uid=10, gid=0, uid_map=maps, gid_map=maps)), (maps, maps, "allow"))
        # His own alone: setgroups(2) stays forbidden, and the launch goes well.
        own = [[0, USER, 1]]
        self.assertEqual(self.map_of("user", *self.profile(uid=0, gid=0, uid_map=own, gid_map=own))[:2], (own, own))
        self.assertIn("the client is who it says", self.launch("root", *self.profile(uid=10, gid=0, uid_map=maps, gid_map=maps), "--", "/bin/true").stderr)

    def test_roots_own_id_is_not_given(self):
        good = [[0, GRANTED["root"], 10]]
        for bad in ([[0, 0, 1]], [[0, 0, 1000]], [[0, 200000, 10], [10, 0, 1]]):
            for name, maps in (("uid_map", {"uid_map": bad, "gid_map": good}), ("gid_map", {"uid_map": good, "gid_map": bad})):
                for caller in CALLERS:
                    with self.subTest(caller, bad=bad, name=name):
                        self.assertRefused(caller, "root's on the host", "--quiet", *self.profile(uid=0, gid=0, **maps), "--", "/bin/echo", "ran")
        self.assertSays("root", "ran\n", "--quiet", *self.profile(uid=0, gid=0, uid_map=good, gid_map=good), "--", "/bin/echo", "ran")
        grant("root:0:65536")
        self.assertRefused("root", "root's on the host", "--subids", "--", "/bin/echo", "ran")

    def test_ids_that_were_not_granted(self):
        maps = [[0, USER, 1], [1, 500000, 10]]
        self.assertRefused("user", "newuidmap", "--quiet", *self.profile(uid=0, gid=0, uid_map=maps, gid_map=maps), "--", "/bin/echo", "ran")
        grant(f"other:{GRANTED['user']}:{IDS}")
        for caller, name in (("root", "root"), ("user", "tester")):
            self.assertRefused(caller, f"has no range of subordinate ids for {name}", "--subids", "--", "/bin/echo", "ran")
        self.assertSays("user", "ran\n", "--", "/bin/echo", "ran")

    def test_without_the_helpers(self):
        empty = "/var/tmp/empty"
        for tool in ("newuidmap", "newgidmap"):
            with open(empty, "w"):
                pass
            small_world.bind(empty, f"/usr/bin/{tool}")  # not executable
            try:
                self.assertRefused("user", f"{tool}(1), which is not in /usr/bin/; install it", "--subids", "--", "/bin/echo", "ran")
                self.assertSays("root", "ran\n", "--subids", "--", "/bin/echo", "ran")
            finally:
                small_world.unmount(f"/usr/bin/{tool}")
        self.assertSays("user", "ran\n", "--subids", "--", "/bin/echo", "ran")

    def test_what_does_not_go_together(self):
        maps = [[0, GRANTED["root"], 10]]
        ids = {"uid": 0, "gid": 0, "uid_map": maps, "gid_map": maps}
        for words, says in ((["--subids", "--disable-userns"], "disable_userns"), (["--subids", *self.profile(**ids)], "leave one out"),
                            (self.profile(**{**ids, "uid": 10}), "uid 10 is not among the ids that are mapped")):
            self.assertRefused("root", says, "--quiet", *words, "--", "/bin/echo", "ran")
        with open(PROFILE, "w") as file:
            json.dump({"postern": 1, "sandbox": {"namespaces": ["pid", "mount"], "user": {"subids": True}}}, file)
        self.assertRefused("root", 'add "user"', "--quiet", "--profile", PROFILE, "--", "/bin/echo", "ran")

    def test_launches_that_are_kept(self):
        kept = set(small_world.cached())
        for first in (200000, 600000):
            grant(f"root:{first}:{IDS}")
            self.assertSays("root", f"{first}\n", "--subids", "--hostname", "kept", "--", "/bin/sh", "-c", "read inside outside count </proc/self/uid_map; echo $outside")
            self.assertEqual(len(set(small_world.cached()) - kept), 1)


if __name__ == "__main__":
    small_world.enter()
    rootless_test.copy_build(os.path.abspath(sys.argv[1]))
    os.mkdir(FILES)
    with open("/etc/passwd") as passwd, open(f"{FILES}/passwd", "w") as more:
        more.write(passwd.read() + f"tester:x:{USER}:{USER}::/:/bin/sh\n")
    grant()
    for name in ("passwd", "subuid", "subgid"):
        small_world.bind(f"{FILES}/{name}", f"/etc/{name}")
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
