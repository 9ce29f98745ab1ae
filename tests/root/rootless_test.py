#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""rootless_test.py BUILD: all that the kernel allows to an ordinary user, tested as one; and what it does not is refused in clear words.

The program and what it reads is copied to where that user may go. uid 12345 has no name, no home and no supplementary group."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import small_world
from small_world import State, left_since

USER = 12345
PLACE = "/var/tmp/postern"
WORK = "/var/tmp/work"
POSTERN = f"{PLACE}/bin/postern"
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
AS_USER = {"user": USER, "group": USER, "extra_groups": [], "cwd": "/"}


def start(*arguments, verb="run", **kwargs):
    kwargs = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENV, **AS_USER, **kwargs}
    return subprocess.Popen([POSTERN, *([verb] if verb else []), *arguments], **kwargs)


def run(*arguments, **kwargs):
    process = start(*arguments, **kwargs)
    out, error = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, error)


def shell(script, *flags, **kwargs):
    return run(*flags, "--", "/bin/sh", "-c", script, **kwargs)


class Rootless(unittest.TestCase):
    def setUp(self):
        self.before = State()
        os.mkdir(WORK)
        os.chown(WORK, USER, USER)

    def tearDown(self):
        shutil.rmtree(WORK)
        self.assertEqual(left_since(self.before), {})

    def assertRan(self, result, out=None):
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        if out is not None:
            self.assertEqual(result.stdout, out)

    def assertRefused(self, result, *words, status=125):
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def profile(self, **sandbox):
        path = f"{WORK}/profile.json"
        with open(path, "w") as file:
            json.dump({"postern": 1, "sandbox": sandbox}, file)
        return ["--profile", path]

    def user_file(self, name, content="of the user\n"):
        with open(f"{WORK}/{name}", "w") as file:
            file.write(content)
        os.chown(f"{WORK}/{name}", USER, USER)
        return f"{WORK}/{name}"

    def user_folder(self, *names):
        for name in names:
            os.mkdir(f"{WORK}/{name}")
            os.chown(f"{WORK}/{name}", USER, USER)
        return f"{WORK}/{names[0]}"


class Sandbox(Rootless):
    def test_the_whole_default(self):
        result = shell("id -u; id -g; cat /proc/self/uid_map; cat /proc/self/status; hostname; ls /proc/sys/net >/dev/null; "
                       "cat /proc/net/dev; touch /x; echo fine >/tmp/x; cat /tmp/x")
        self.assertRan(result)
        self.assertTrue(result.stdout.startswith("65534\n65534\n"))
        self.assertRegex(result.stdout, rf"65534 +{USER} +1\n")
        for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
            self.assertIn(line, result.stdout)
        self.assertIn("Read-only file system", result.stderr)
        self.assertTrue(result.stdout.endswith("fine\n"))
        self.assertNotRegex(result.stdout, r"(?m)^ *(eth|ens|enp)\w+:")

    def test_this_is_an_ordinary_user(self):
        """The control of all here: the same user without a sandbox has no right to any of it."""
        for command in (["mount", "-t", "tmpfs", "none", WORK], ["hostname", "other"], ["chroot", "/", "true"]):
            self.assertNotEqual(subprocess.run(command, capture_output=True, **AS_USER).returncode, 0, command)

    def test_every_namespace(self):
        kinds = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"]
        listing = "for kind in " + " ".join(kinds) + "; do readlink /proc/self/ns/$kind; done"
        own = subprocess.run(["/bin/sh", "-c", listing], capture_output=True, text=True).stdout.split()
        inside = shell(listing).stdout.split()
        self.assertEqual(len(inside), len(kinds))
        self.assertFalse(set(own) & set(inside))
        shared = shell(listing, "--share-net", "--share-ipc", "--share-uts", "--share-cgroup").stdout.split()
        self.assertEqual([kind for kind, one, other in zip(kinds, own, shared) if one == other], ["net", "ipc", "uts", "cgroup"])

    def test_shared_pids(self):
        result = shell("readlink /proc/self/ns/pid; exit 3", "--share-pid")
        self.assertEqual((result.returncode, result.stdout.strip()), (3, os.readlink("/proc/self/ns/pid")), result.stderr)

    def test_the_time_namespace(self):
        result = shell("readlink /proc/self/ns/time", *self.profile(namespaces=["user", "pid", "mount", "time"]))
        if result.returncode == 125:
            self.assertIn("time", result.stderr)
        else:
            self.assertRan(result)
            self.assertNotEqual(result.stdout.strip(), os.readlink("/proc/self/ns/time"))

    def test_ids_inside(self):
        self.assertRan(shell("id -u; id -g", "--uid", "0", "--gid", "5"), "0\n5\n")
        path = self.user_file("file")
        self.assertRan(shell(f"stat -c %u {path}; echo more >>{path}", "--uid", "0", "--bind", WORK, WORK), "0\n")
        self.assertRan(shell("cat /etc/shadow >/dev/null 2>&1 || echo refused", "--uid", "0"), "refused\n")

    def test_capabilities_inside(self):
        self.assertIn("CapEff:\t0000000000001000", shell("cat /proc/self/status", "--cap-add", "net_admin").stdout)

    def test_a_host_name(self):
        self.assertRan(shell("hostname", "--hostname", "another"), "another\n")

    def test_limits(self):
        self.assertRan(shell("ulimit -Sn; ulimit -Hn", "--rlimit", "nofile=64:128"), "64\n128\n")
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.assertRan(shell("ulimit -Hn", "--rlimit", f"nofile=64:{hard}"), f"{hard}\n")
        self.assertRefused(shell("true", "--rlimit", f"nofile=64:{hard + 1}"), "nofile", "CAP_SYS_RESOURCE", "ulimit -H")

    def test_environment_and_folder(self):
        self.assertRan(run("--setenv", "A", "1", "--clearenv", "--setenv", "B", "2", "--chdir", "/usr", "--", "/bin/sh", "-c", "echo $A$B; pwd"),
                       "2\n/usr\n")

    def test_seccomp(self):
        self.assertRan(shell("grep -c 'Seccomp:.0' /proc/self/status", "--seccomp-profile", "none"), "1\n")
        filter_file = self.user_file("filter.json", json.dumps(
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}))
        result = shell("mkdir /tmp/x", "--seccomp-profile", filter_file)
        self.assertIn("No space left", result.stderr)


class Roots(Rootless):
    LIBRARIES = ["--ro-bind", "/usr", "/usr", "--ro-bind", "/lib", "/lib", "--ro-bind", "/lib64", "/lib64"]

    def test_of_the_host(self):
        self.assertRan(shell("ls /etc/passwd; ls -A /tmp /run /var/tmp | grep -c postern; ls /sys", "--root", "host-ro"),
                       "/etc/passwd\n0\ndevices\n")

    def test_empty(self):
        self.assertRan(run("--root", "empty", *self.LIBRARIES, "--", "/usr/bin/ls", "/"), "dev\nlib\nlib64\nproc\ntmp\nusr\n")

    def test_a_folder(self):
        root = self.user_folder("root")
        for name in ("usr", "lib", "lib64", "proc", "dev", "tmp", "mine"):
            self.user_folder(f"root/{name}")
        result = run("--root", root, *self.LIBRARIES, "--bind", root + "/mine", "/mine", "--", "/usr/bin/env", "sh", "-c",
                     "ls /; ls /dev/null /proc/self/status; echo x >/mine/x; echo x >/x", env={"PATH": "/usr/bin"})
        self.assertEqual(result.stdout, "dev\nlib\nlib64\nmine\nproc\ntmp\nusr\n/dev/null\n/proc/self/status\n", result.stderr)
        self.assertIn("Read-only", result.stderr)
        self.assertEqual(os.stat(root + "/mine/x").st_uid, USER)

    def test_a_folder_is_followed_by_the_command_without_dashes(self):
        root = self.user_folder("root")
        for name in ("usr", "lib", "lib64"):
            self.user_folder(f"root/{name}")
        self.assertRan(run(*self.LIBRARIES, "--root", root, "/usr/bin/echo", "--", "here"), "-- here\n")


class Mounts(Rootless):
    def test_binds(self):
        path = self.user_file("file")
        self.assertRan(shell("cat /mnt/file; echo more >>/mnt/file", "--bind", WORK, "/mnt"), "of the user\n")
        with open(path) as file:
            self.assertEqual(file.read(), "of the user\nmore\n")
        result = shell("echo more >>/mnt/file", "--ro-bind", WORK, "/mnt")
        self.assertIn("Read-only file system", result.stderr)
        self.assertRan(shell("echo x >/mnt/null && cat /mnt/null", "--dev-bind", "/dev", "/mnt"), "")

    def test_what_it_may_not_bind(self):
        os.mkdir(f"{WORK}/closed", 0o700)
        os.mkdir(f"{WORK}/closed/inner")
        self.assertRefused(shell("true", "--bind", f"{WORK}/closed/inner", "/mnt"), "inner", "may not enter")
        self.assertRefused(shell("true", "--bind", f"{WORK}/missing", "/mnt"), "missing", "create the source")

    def test_tmpfs(self):
        result = shell("stat -c %a /tmp/small; head -c 3M /dev/zero >/tmp/small/file; stat -c %s /tmp/small/file",
                       *self.profile(mounts=[{"type": "tmpfs", "target": "/tmp/small", "options": ["size=1m", "mode=0700"]}]))
        self.assertEqual(result.stdout, "700\n1048576\n", result.stderr)

    def test_proc_and_dev(self):
        self.assertRan(shell("ls /tmp/p/self/status /tmp/d/null /tmp/d/pts/ptmx; echo x >/tmp/d/shm/x && echo written", "--proc", "/tmp/p", "--dev", "/tmp/d"),
                       "/tmp/d/null\n/tmp/d/pts/ptmx\n/tmp/p/self/status\nwritten\n")
        self.assertIn(shell("cat /proc/1/comm").stdout, ("postern-init\n",))

    def test_overlays(self):
        lower = self.user_folder("lower", "upper", "work")
        self.user_file("lower/file")
        change = "cat /mnt/file; echo changed >/mnt/file; rm /mnt/file; echo new >/mnt/new; ls /mnt"
        scratch = [{"type": "overlay", "target": "/mnt", "options": [f"lowerdir={lower}", "scratch"]}]
        self.assertRan(shell(change, *self.profile(mounts=scratch)), "of the user\nnew\n")
        self.assertEqual(os.listdir(lower), ["file"])
        kept = [{"type": "overlay", "target": "/mnt", "options": [f"lowerdir={lower}", f"upperdir={WORK}/upper", f"workdir={WORK}/work"]}]
        self.assertRan(shell(change, *self.profile(mounts=kept)), "of the user\nnew\n")
        self.assertIn("new", os.listdir(f"{WORK}/upper"))
        self.assertEqual(os.listdir(lower), ["file"])


class Life(Rootless):
    def test_statuses(self):
        for script, status in (("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)):
            self.assertEqual(shell(script).returncode, status)
        self.assertRefused(run("--", "/no/such/command"), "/no/such/command", status=127)
        self.assertRefused(run("--", "/etc/passwd"), "not executable", status=126)

    def test_a_time_limit(self):
        begin = time.monotonic()
        self.assertEqual(shell("trap '' TERM; while :; do sleep 0.05; done", "--time-limit", "200ms").returncode, 124)
        self.assertLess(time.monotonic() - begin, 20)

    def test_signals(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            process = start("--", "/bin/sh", "-c", f"trap 'echo got; exit 42' {int(number)}; echo ready; while :; do sleep 0.01; done")
            self.assertEqual(process.stdout.readline(), "ready\n")
            process.send_signal(number)
            self.assertEqual(process.communicate(timeout=30)[0], "got\n")
            self.assertEqual(process.returncode, 42)

    def test_it_dies_with_its_launcher(self):
        process = start("--", "/bin/sh", "-c", "setsid sleep 1000 & echo ready; sleep 1000")
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.kill()
        process.communicate()
        self.assertTrue(small_world.wait_until(lambda: not State().left(self.before).get("process")))

    def test_status_is_told(self):
        reader, writer = os.pipe()
        self.assertEqual(run("--json-status-fd", str(writer), "--", "/bin/sh", "-c", "exit 9", pass_fds=[writer]).returncode, 9)
        said = [json.loads(line) for line in os.read(reader, 65536).decode().splitlines()]
        self.assertGreater(said[0]["child-pid"], 1)
        self.assertEqual(said[-1]["exit-code"], 9)
        os.close(reader)
        os.close(writer)

    def test_many_at_once(self):
        """With keyrings of their own as well, of which a user may have 200."""
        for flags in ([], ["--seccomp-profile", "none", "--quiet"]):
            clients = [start(*flags, "--", "/bin/sh", "-c", f"echo up; read line; exit {i}", stdin=subprocess.PIPE) for i in range(64)]
            self.assertEqual([client.stdout.readline() for client in clients], ["up\n"] * 64)
            for client in clients:
                client.communicate("\n")
            self.assertEqual([client.returncode for client in clients], list(range(64)))

    def test_launches_are_kept_for_the_user(self):
        runtime = self.user_folder("runtime")
        os.chmod(runtime, 0o700)
        for _ in range(2):
            self.assertRan(run("--", "/bin/echo", "same", env={**ENV, "XDG_RUNTIME_DIR": runtime}), "same\n")
            self.assertEqual(len(os.listdir(runtime + "/postern-cache")), 1)
            self.assertEqual(os.stat(runtime + "/postern-cache").st_uid, USER)


class Refusals(Rootless):
    def test_a_cgroup_that_is_not_delegated(self):
        for limit in ({"memory.max": "64MiB"}, {"pids.max": "64"}, {"cpu.max": "50000 100000"}):
            self.assertRefused(shell("true", *self.profile(cgroup=limit)), "cgroup", "elegate")

    def test_no_user_namespace(self):
        self.assertRefused(shell("true", "--quiet", *self.profile(namespaces=["pid", "mount"])), "CAP_SYS_ADMIN", 'add "user"')

    def test_a_capability_that_cannot_be_kept(self):
        self.assertRefused(shell("true", "--quiet", *self.profile(namespaces=[], capabilities=["net_admin"])), "becoming the client's user", "add \"user\"")
        self.assertRefused(shell("true", "--cap-add", "net_nothing"), "net_nothing")

    def test_a_seccomp_profile_that_cannot_be_read(self):
        path = self.user_file("filter.json", "{}")
        os.chown(path, 0, 0)
        os.chmod(path, 0o600)
        self.assertRefused(shell("true", "--seccomp-profile", path), "filter.json", "ermission")

    def test_options_that_are_none(self):
        self.assertRefused(run("--bogus", "--", "/bin/true"), "unknown option --bogus")
        self.assertRefused(run("--hostnam=x", "/bin/true"), "unknown option --hostnam", "--hostname")
        self.assertRefused(run("--rlimit", "nothing=1", "--", "/bin/true"), "nothing")
        self.assertRefused(run("--root", "/no/such/folder", "--", "/bin/true"), "/no/such/folder")

    def test_a_device(self):
        result = run("--device", "0000:00:02.0", "--", "/bin/true")
        self.assertEqual(result.returncode, 125, result.stderr)


class Bubblewrap(Rootless):
    BASE = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]

    def bwrap(self, *arguments, **kwargs):
        return run(*arguments, verb="bwrap", **kwargs)

    def test_the_usual(self):
        self.assertRan(self.bwrap(*self.BASE, "--unshare-all", "--die-with-parent", "sh", "-c", "id -u; hostname >/dev/null; ls /proc | grep -c '^1$'"),
                       f"{USER}\n1\n")

    def test_ids_name_and_folder(self):
        self.assertRan(self.bwrap(*self.BASE, "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-uts", "--hostname", "wrapped", "--chdir", "/usr",
                                  "--setenv", "A", "1", "sh", "-c", "id -u; hostname; pwd; echo $A"), "0\nwrapped\n/usr\n1\n")

    def test_mount_operations_in_their_order(self):
        self.user_file("file")
        self.assertRan(self.bwrap("--ro-bind", "/", "/", "--tmpfs", WORK, "--dir", f"{WORK}/a/b", "--symlink", "a/b", f"{WORK}/link", "sh", "-c",
                                  f"ls {WORK}; readlink {WORK}/link"), "a\nlink\na/b\n")
        self.assertRan(self.bwrap("--tmpfs", "/tmp", "--bind", "/", "/", "sh", "-c", f"cat {WORK}/file"), "of the user\n")

    def test_statuses(self):
        self.assertEqual(self.bwrap(*self.BASE, "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(self.bwrap("--ro-bind", "/no/such", "/", "true").returncode, 1)

    def test_no_more_user_namespaces(self):
        self.assertRan(self.bwrap(*self.BASE, "--unshare-user", "unshare", "--user", "echo", "made"), "made\n")
        self.assertNotEqual(self.bwrap(*self.BASE, "--unshare-user", "--disable-userns", "unshare", "--user", "echo", "made").returncode, 0)


def copy_build(build):
    os.makedirs(f"{PLACE}/bin")
    shutil.copy(f"{build}/bin/postern", POSTERN)
    for name in ("libexec", "share"):
        shutil.copytree(f"{build}/{name}", f"{PLACE}/{name}")
    subprocess.run(["chmod", "-R", "a+rX", PLACE], check=True)


if __name__ == "__main__":
    small_world.enter()
    copy_build(os.path.abspath(sys.argv[1]))
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
