#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`postern systemd-run` and `postern run --notify` under a booted systemd: services and scopes, with a device and without.

Runs as root in the guest with systemd as pid 1; see tests/lab/README.md. Every refusal has a control beside it."""

import glob
import json
import os
import shutil
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
BUILD = os.environ["POSTERN_BUILD"]
BLK = os.environ["LAB_VIRTIO_BLK"]
#: Of Debian's base-passwd, with a name: PAM and systemd want one.
USER, GROUP = 5, 60
PLACE = "/run/postern-test"
POSTERN = f"{PLACE}/bin/postern"
UNIT = "postern-test"
#: Sends its arguments, a message each, and goes on as the last one says. Where the sandbox sees it: /run is its own.
TELL = "/usr/local/bin/tell-manager"
TELL_TEXT = '''#!/usr/bin/python3
import array, os, socket, sys, time
place = os.environ["NOTIFY_SOCKET"]
def tell(message, fds=()):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(place)
        s.sendmsg([message.encode().replace(b"|", b"\\n")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
def barrier():
    reader, writer = os.pipe()
    tell("BARRIER=1", [writer])
    os.close(writer)
    os.set_blocking(reader, True)
    return os.read(reader, 1) == b""
for word in sys.argv[1:]:
    if word == "barrier":
        print("barrier", barrier(), flush=True)
    elif word == "stay":
        while True: time.sleep(100)
    elif word == "kick":
        while True: tell("WATCHDOG=1"); time.sleep(0.3)
    elif word == "flood":
        while True: tell("STATUS=flood")
    elif word == "store":
        tell("FDSTORE=1|FDNAME=mine", [0])
    elif word == "stray":
        if os.fork() == 0:
            tell("STATUS=of a child|MAINPID=%d" % os.getpid())
            barrier()
            os._exit(0)
        os.wait()
    elif word == "watchdog":
        print(os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID") == str(os.getpid()), flush=True)
    elif word.startswith("sleep"):
        time.sleep(float(word[5:]))
    else:
        tell(word)
'''


def run(*command, timeout=120, **more):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, **more)


def systemd_run(*words, **more):
    return run(POSTERN, "systemd-run", "--quiet", *words, **more)


def read(path):
    with open(path) as file:
        return file.read()


def show(name, unit=UNIT):
    return run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def processes(needle):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if needle.encode() in file.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


class Units(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.look)
        self.addCleanup(run, "systemctl", "reset-failed")
        self.addCleanup(run, "systemctl", "stop", UNIT)

    def look(self):
        """Nothing is left: no cgroup, no process, no socket."""
        self.assertTrue(wait_until(lambda: glob.glob("/sys/fs/cgroup/**/postern-*[0-9]*", recursive=True) == []))
        self.assertEqual(glob.glob("/run/postern/notify-*"), [])
        self.assertEqual(processes(TELL), [])

    def start(self, *words, unit=UNIT, timeout=120):
        return systemd_run(f"--unit={unit}", *words, timeout=timeout)


class Running(Units):
    def test_status_and_files_of_a_service(self):
        for status in (0, 42):
            result = systemd_run("--wait", "--pipe", "--", "/bin/sh", "-c", f"cat; echo out; echo err >&2; exit {status}")
            self.assertEqual((result.returncode, result.stdout, result.stderr), (status, "out\n", "err\n"))
        result = subprocess.run([POSTERN, "systemd-run", "-qP", "--wait", "cat"], input="in", capture_output=True, text=True, timeout=60)
        self.assertEqual((result.returncode, result.stdout), (0, "in"), result.stderr)
        result = systemd_run("--wait", "--pipe", "--", "/no/such/command")
        self.assertEqual(result.returncode, 127, result.stderr)
        self.assertIn("/no/such/command", result.stderr)

    def test_status_of_a_scope(self):
        result = systemd_run("--scope", "--", "/bin/sh", "-c", "echo out; exit 42")
        self.assertEqual((result.returncode, result.stdout), (42, "out\n"), result.stderr)

    def test_the_client_is_in_a_sandbox(self):
        script = "readlink /proc/self/ns/net; echo $A $B; pwd"
        outside = os.readlink("/proc/self/ns/net")
        result = systemd_run("-Pq", "--wait", "-E", "A=1", "--setenv", "B", "2", "--", "/bin/sh", "-c", script)
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = result.stdout.splitlines()
        self.assertNotEqual(lines[0], outside)
        self.assertEqual(lines[1:], ["1 2", os.getcwd()])
        result = systemd_run("-P", "--wait", "--share-net", "--", "/bin/sh", "-c", script)
        self.assertEqual(result.stdout.splitlines()[0], outside, result.stderr)

    def test_the_command_is_not_expanded(self):
        result = systemd_run("-P", "--wait", "--", "/bin/sh", "-c", 'x=1; echo "$x $$x" %n', "a$b")
        self.assertRegex(result.stdout, r"^1 \d+x %n$", result.stderr)

    def test_relative_profiles_are_the_callers(self):
        result = systemd_run("-P", "--wait", "--profile", "./limited.json", "--", "true", cwd=PLACE)
        self.assertEqual(result.returncode, 0, result.stderr)
        result = systemd_run("-P", "--wait", "--profile", "./limited.json", "--", "true", cwd="/")
        self.assertEqual(result.returncode, 125, result.stderr)

    def test_limits_of_the_profile(self):
        for kind in (("--wait", "--pipe"), ("--scope",)):
            with self.subTest(kind=kind):
                result = systemd_run(*kind, "--profile", f"{PLACE}/limited.json", "--", "/bin/sh", "-c", "tail /dev/zero; exit 4")
                self.assertEqual(result.returncode, 4, result.stderr)
                self.assertIn("the memory limit was hit", result.stderr)
        # The control: systemd's word counts, and then there is no cgroup to make.
        result = systemd_run("--wait", "--pipe", "-p", "Delegate=no", "-p", f"User={USER}", "--profile", f"{PLACE}/limited.json", "--", "true")
        self.assertEqual(result.returncode, 125, result.stderr)
        self.assertIn("not delegated", result.stderr)

    def test_slices(self):
        result = systemd_run("--wait", "--pipe", "--slice=posterntest.slice", "--share-cgroup", "--slice", "0", "--", "cat", "/proc/self/cgroup")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("/posterntest.slice/run-", result.stdout)
        result = systemd_run("--wait", "--pipe", "--slice", "1", "--", "true")
        self.assertEqual(result.returncode, 125)
        self.assertIn("slice", result.stderr)

    def test_stop_ends_the_client_in_order(self):
        script = "trap 'echo got TERM; exit 0' TERM; echo begun; while :; do sleep 0.1; done"
        log = f"{PLACE}/stopped"
        result = self.start("-p", f"StandardOutput=file:{log}", "--", "/bin/bash", "-c", script)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(wait_until(lambda: os.path.exists(log) and "begun" in read(log)))
        self.assertEqual(show("Delegate"), "yes")
        self.assertEqual(run("systemctl", "stop", UNIT, timeout=60).returncode, 0)
        self.assertEqual(read(log), "begun\ngot TERM\n")

    def test_a_client_that_does_not_end_is_killed(self):
        result = self.start("-p", "TimeoutStopSec=1", "--", "/bin/bash", "-c", "trap '' TERM; sleep 54321 & while :; do wait; done")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(wait_until(lambda: processes("54321")))
        run("systemctl", "stop", UNIT, timeout=60)
        self.assertTrue(wait_until(lambda: processes("54321") == [], 120))

    def test_a_failure_is_started_again(self):
        count = f"{PLACE}/count"
        os.makedirs(count, exist_ok=True)
        os.chmod(count, 0o777)
        script = f"touch {count}/$(ls {count} | wc -l); [ $(ls {count} | wc -l) -ge 3 ]"
        result = self.start("-p", "Restart=on-failure", "-p", "RestartSec=50ms", "--bind", count, count, "--", "/bin/sh", "-c", script)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(wait_until(lambda: len(os.listdir(count)) == 3))
        self.assertTrue(wait_until(lambda: show("ActiveState") == "inactive"))
        self.assertEqual(len(os.listdir(count)), 3)

    def test_nothing_is_left_of_a_killed_launcher(self):
        result = self.start("--profile", f"{PLACE}/limited.json", "--notify", "--", TELL, "READY=1", "stay")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotEqual(processes(TELL), [])
        os.kill(int(show("MainPID")), 9)
        self.assertTrue(wait_until(lambda: show("ActiveState") in ("failed", "inactive")))
        self.assertTrue(wait_until(lambda: processes(TELL) == []))

    def test_the_users_own_manager(self):
        self.assertEqual(run("systemctl", "start", f"user@{USER}.service").returncode, 0)
        self.addCleanup(run, "systemctl", "stop", f"user@{USER}.service")
        user = ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups", "env", f"XDG_RUNTIME_DIR=/run/user/{USER}"]
        for kind in (("--wait", "--pipe"), ("--scope",)):
            with self.subTest(kind=kind):
                result = run(*user, POSTERN, "systemd-run", "--quiet", "--user", *kind, "--profile", f"{PLACE}/limited.json", "--", "/bin/sh", "-c",
                             "id -u; exit 3", cwd="/")
                self.assertEqual((result.returncode, result.stdout), (3, "65534\n"), result.stderr)
        result = run(*user, POSTERN, "systemd-run", "--quiet", "--user", f"--unit={UNIT}-user", "--notify", "--", TELL, "READY=1|STATUS=here", "stay", cwd="/")
        self.assertEqual(result.returncode, 0, result.stderr)
        said = run(*user, "systemctl", "--user", "show", "--value", "--property=StatusText", f"{UNIT}-user").stdout
        self.assertEqual(said, "here\n")
        run(*user, "systemctl", "--user", "stop", f"{UNIT}-user")

    def test_refusals_in_words(self):
        for words, part in ((["--devise", "x", "--", "true"], "did you mean --device?"),
                            (["--scope", "--notify", "--", "true"], "a scope has no service manager"),
                            (["--wait"], "no command"), (["-p"], "a word is missing")):
            result = systemd_run(*words)
            self.assertEqual(result.returncode, 125, words)
            self.assertIn(part, result.stderr)
            self.assertEqual(result.stderr.count("\n"), 1)
        result = run(POSTERN, "run", "--notify", "--", "true")
        self.assertEqual(result.returncode, 125)
        self.assertIn("NOTIFY_SOCKET is not set", result.stderr)
        self.assertEqual(run(POSTERN, "run", "--", "true").returncode, 0)


def stop():
    """So that the name is free again: a client that SIGTERM has ended has failed, status 143."""
    run("systemctl", "stop", UNIT)
    run("systemctl", "reset-failed", UNIT)


class Telling(Units):
    def notify(self, *words, options=()):
        return self.start("--notify", *options, "--", TELL, *words)

    def test_ready(self):
        begin = time.monotonic()
        result = self.notify("sleep1.5", "READY=1|STATUS=serving", "stay")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertGreater(time.monotonic() - begin, 1.4)
        self.assertEqual((show("ActiveState"), show("StatusText"), show("Type")), ("active", "serving", "notify"))

    def test_a_client_that_never_is(self):
        result = self.notify("STATUS=not yet", "stay", options=("-p", "TimeoutStartSec=2"))
        self.assertNotEqual(result.returncode, 0)
        self.assertTrue(wait_until(lambda: show("Result") == "timeout"), show("Result"))

    def test_an_own_word_is_enough(self):
        """Of the client itself, though it has ended by then."""
        result = self.notify("READY=1|STATUS=all done", options=("-p", "RemainAfterExit=yes"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(show("StatusText"), "all done")

    def test_watchdog(self):
        log = f"{PLACE}/watchdog"
        options = ("-p", "WatchdogSec=10", "-p", f"StandardOutput=file:{log}", "-p", "WatchdogSignal=SIGTERM")
        result = self.notify("watchdog", "READY=1", "kick", options=options)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(read(log), "10000000 True\n")
        time.sleep(13)
        self.assertEqual(show("ActiveState"), "active")
        stop()
        result = self.notify("READY=1", "WATCHDOG=1", "stay", options=options)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(wait_until(lambda: show("Result") == "watchdog"), show("Result"))
        self.assertTrue(wait_until(lambda: processes(TELL) == []))

    def test_watchdog_starts_it_again(self):
        result = self.notify("READY=1", "stay", options=("-p", "WatchdogSec=1", "-p", "Restart=on-watchdog", "-p", "RestartSec=50ms"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(wait_until(lambda: int(show("NRestarts")) >= 2))

    def test_trigger(self):
        result = self.notify("READY=1", "WATCHDOG=trigger", "stay", options=("-p", "WatchdogSec=100"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(wait_until(lambda: show("Result") == "watchdog"), show("Result"))

    def test_a_barrier_is_answered(self):
        log = f"{PLACE}/barrier"
        result = self.notify("barrier", "READY=1", "stay", options=("-p", f"StandardOutput=file:{log}"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(read(log), "barrier True\n")
        stop()
        # As libsystemd does it, from a process of the client's.
        result = self.start("--notify", "--", "/bin/sh", "-c", "systemd-notify --ready --status=by-tool && exec sleep 1000")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(show("StatusText"), "by-tool")

    def test_a_hostile_client(self):
        """It speaks for itself alone, and no flood keeps postern from its work."""
        result = self.notify("MAINPID=1", "store", "NOTIFYACCESS=all", "WATCHDOG_USEC=1", "STATUS=\x1b[2J", "BUSERROR=x", "stray", "barrier", "READY=1", "stay",
                             options=("-p", "FileDescriptorStoreMax=10"))
        self.assertEqual(result.returncode, 0, result.stderr)
        main = int(show("MainPID"))
        self.assertIn("postern", read(f"/proc/{main}/comm"))
        self.assertEqual((show("NFileDescriptorStore"), show("NotifyAccess"), show("StatusText")), ("0", "main", "of a child"))
        self.assertEqual(show("WatchdogUSec"), "0")
        stop()
        # The control: systemd itself would have believed the same words from the main process.
        service = run("systemd-run", "--quiet", f"--unit={UNIT}", "-p", "Type=notify", "-p", "FileDescriptorStoreMax=10", "--", TELL, "store", "READY=1", "stay")
        self.assertEqual(service.returncode, 0, service.stderr)
        self.assertEqual(show("NFileDescriptorStore"), "1")
        stop()

    def test_a_flood(self):
        result = self.notify("READY=1", "flood")
        self.assertEqual(result.returncode, 0, result.stderr)
        main = int(show("MainPID"))

        def used():
            words = read(f"/proc/{main}/stat").rsplit(")", 1)[1].split()
            return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        before, begin = used(), time.monotonic()
        time.sleep(3)
        self.assertLess(used() - before, 2 / 3 * (time.monotonic() - begin))
        begin = time.monotonic()
        self.assertEqual(run("systemctl", "stop", UNIT, timeout=60).returncode, 0)
        self.assertLess(time.monotonic() - begin, 60)

    def test_outsiders_are_not_heard(self):
        """The socket has no name outside; root, who gets at it through the client, is another sandbox's to postern."""
        result = self.notify("READY=1|STATUS=mine", "stay")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(glob.glob("/run/postern/notify-*"), [])
        client = next(pid for pid in processes(TELL) if read(f"/proc/{pid}/comm") == "tell-manager\n")
        other = dict(os.environ, NOTIFY_SOCKET=f"/proc/{client}/root/run/postern/notify")
        self.assertEqual(run(TELL, "STATUS=not mine", "barrier", env=other).stdout, "barrier True\n")
        self.assertEqual(show("StatusText"), "mine")


class WithDevice(Units):
    @classmethod
    def setUpClass(cls):
        bound = run(POSTERN, "bind", BLK)
        assert bound.returncode == 0, bound.stderr
        cls.options = ["--device", BLK, "--profile", "virtio-blk-queue", "--slice", "1"]

    def test_a_queue_in_a_service(self):
        result = systemd_run("--wait", "--pipe", *self.options, "--", f"{PLACE}/examples/virtio-blk-client", "--reads", 3000, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        said = json.loads(result.stdout)
        self.assertEqual((said["slice"], said["verified"], said["errors"]), (1, 3000, 0))

    def entries(self, *match):
        run("journalctl", "--sync")
        text = run("journalctl", "--output=json", "--no-pager", *match).stdout
        return [json.loads(line) for line in text.splitlines()]

    def test_the_journal_knows_the_grant(self):
        result = self.start(*self.options, "--notify", "--", TELL, "READY=1", "stay")
        self.assertEqual(result.returncode, 0, result.stderr)
        grant = json.loads(run(POSTERN, "ps", "--json").stdout)[0]["grant"]
        stop()
        found = self.entries(f"POSTERN_GRANT={grant}")
        self.assertEqual(len(found), 2, found)
        for each in found:
            self.assertEqual((each["POSTERN_DEVICE"], each["POSTERN_SLICE"], each["POSTERN_PROFILE"], each["_SYSTEMD_UNIT"]),
                             (BLK, "1", "virtio-blk-queue", f"{UNIT}.service"))
        self.assertIn("slice 1", found[0]["MESSAGE"])
        self.assertIn("status 143", found[1]["MESSAGE"])
        # Once, and not on stderr as well.
        everything = [each["MESSAGE"] for each in self.entries("-u", f"{UNIT}.service")]
        self.assertEqual(len([each for each in everything if "the client has ended" in each]), 1, everything)
        self.assertEqual(self.entries("POSTERN_GRANT=0000000000000000"), [])

    def test_not_the_journal(self):
        """What goes to the caller has no second line in the journal."""
        result = systemd_run("--wait", "--pipe", f"--unit={UNIT}", *self.options, "--", "/bin/sh", "-c", "echo said; exit 3")
        self.assertEqual((result.returncode, result.stdout), (3, "said\n"), result.stderr)
        self.assertEqual([each for each in self.entries("-u", f"{UNIT}.service", "POSTERN_SLICE=1") if "status 3" in each["MESSAGE"]], [])


if __name__ == "__main__":
    os.makedirs(f"{PLACE}/bin")
    shutil.copy(f"{BUILD}/bin/postern", POSTERN)
    shutil.copytree(f"{BUILD}/libexec", f"{PLACE}/libexec")
    shutil.copytree(f"{BUILD}/share", f"{PLACE}/share")
    shutil.copytree(f"{BUILD}/examples", f"{PLACE}/examples")
    with open(TELL, "w") as file:
        file.write(TELL_TEXT)
    os.chmod(TELL, 0o755)
    with open(f"{PLACE}/limited.json", "w") as file:
        json.dump({"postern": 1, "sandbox": {"cgroup": {"memory.max": "32MiB", "pids.max": "30"}}}, file)
    subprocess.run(["chmod", "-R", "a+rX", PLACE], check=True)
    subprocess.run(["systemctl", "start", "systemd-journald.service"], check=True)
    os.chdir("/")
    unittest.main(verbosity=2)
