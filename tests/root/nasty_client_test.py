#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""nasty_client_test.py BUILD: clients that do their worst end when they should, with the status that they should, and leave nothing."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import small_world
from small_world import State, left_since, pids, text, wait_until

POSTERN = ""
MIB = 1 << 20


def start(*arguments, verb="run", **kwargs):
    kwargs = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **kwargs}
    return subprocess.Popen([POSTERN, verb, *arguments], **kwargs)


def run(*arguments, timeout=60, **kwargs):
    process = start(*arguments, **kwargs)
    try:
        out, error = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, error)


def shell(script, *flags, **kwargs):
    return run(*flags, "--", "/bin/sh", "-c", script, **kwargs)


def running(comm):
    return [pid for pid in pids() if text(f"/proc/{pid}/comm").strip() == comm]


class NastyTest(unittest.TestCase):
    def setUp(self):
        shell("true")
        self.before = State()

    def tearDown(self):
        self.assertEqual(left_since(self.before), {})

    def assertEnds(self, result, status, *words):
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        for word in words:
            self.assertIn(word, result.stdout + result.stderr)


class Bombs(NastyTest):
    FORK = "b() { b & b & }; b; b; sleep 1000"

    def test_forks_are_limited(self):
        # dash says "Cannot fork" and ends; the bomb's other processes go on.
        result = shell(self.FORK, "--rlimit", "nproc=50", "--time-limit", "15s")
        self.assertIn(result.returncode, (2, 124), result.stderr)
        self.assertIn("annot fork", result.stderr)
        self.assertEnds(shell("sleep 0 & wait; exit 4", "--rlimit", "nproc=50"), 4)

    def test_a_limit_on_processes_is_of_one_sandbox(self):
        """All have the same user outside: the bomb in one must not keep another from forking."""
        bomb = start("--rlimit", "nproc=50", "--", "/bin/sh", "-c",
                     "i=0; while [ $i -lt 48 ]; do sleep 1000 & i=$((i + 1)); done; echo full; wait", stderr=subprocess.DEVNULL)
        self.assertEqual(bomb.stdout.readline(), "full\n")
        self.assertEnds(shell("sleep 0 & wait; exit 4", "--rlimit", "nproc=50"), 4)
        bomb.terminate()
        bomb.communicate()
        self.assertEqual(bomb.returncode, 128 + signal.SIGTERM)

    def test_a_thousand_processes_end_with_the_limit_in_time(self):
        bomb = start("--rlimit", "nproc=1500", "--time-limit", "4s", "--", "/bin/sh", "-c",
                     "i=0; while [ $i -lt 1000 ]; do (trap '' TERM; read line <&9) 9<>/dev/zero & i=$((i + 1)); done; echo full; wait",
                     stderr=subprocess.DEVNULL)
        bomb.communicate(timeout=60)
        self.assertEqual(bomb.returncode, 124)

    def test_a_bomb_that_goes_off_ends_with_its_launcher(self):
        # While it grows: at its limit a shell that cannot fork ends, and so may the bomb.
        for _ in range(3):
            bomb = start("--rlimit", "nproc=3000", "--", "/bin/sh", "-c", "trap '' TERM; " + self.FORK, stderr=subprocess.DEVNULL)
            grown = wait_until(lambda: len(pids()) > 100, 30)
            bomb.kill()
            bomb.wait()
            bomb.stdout.close()
            if grown:
                break
        self.assertTrue(grown)

    def test_memory_by_rlimit(self):
        eater = "head -c 600M /dev/zero | tail | wc -c; exit 3"
        self.assertEnds(shell(eater, "--rlimit", f"as={256 * MIB}"), 3, "memory exhausted", "0\n")
        self.assertEnds(shell(eater.replace("600M", "1M"), "--rlimit", f"as={256 * MIB}"), 3, f"{MIB}\n")

    def test_memory_by_cgroup(self):
        """Where this machine has no memory controller for version 2, the launch says so rather than to go without the limit."""
        profile = "/tmp/memory.json"
        with open(profile, "w") as file:
            json.dump({"postern": 1, "sandbox": {"cgroup": {"memory.max": "64MiB"}}}, file)
        root = small_world.CGROUPS

        def to_root():
            with open(f"{root}/cgroup.procs", "w") as file:
                file.write("0")
        kwargs = {"preexec_fn": to_root} if root else {}
        result = shell("head -c 600M /dev/zero | tail | wc -c; exit 3", "--profile", profile, **kwargs)
        if root and "memory" in text(f"{root}/cgroup.controllers").split():
            self.assertIn("memory", result.stderr)
            self.assertNotIn(f"{600 * MIB}", result.stdout)
            self.assertEnds(shell("head -c 1M /dev/zero | tail | wc -c; exit 3", "--profile", profile, **kwargs), 3, f"{MIB}\n")
        else:
            print("    no memory controller in version 2 here: refused, as it should be", file=sys.stderr)
            self.assertEnds(result, 125, "cgroup")
            self.assertRegex(result.stderr, "controller memory|cgroup v2")
        os.unlink(profile)

    def test_a_full_tmpfs(self):
        profile = "/tmp/small.json"
        with open(profile, "w") as file:
            json.dump({"postern": 1, "sandbox": {"mounts": [{"type": "tmpfs", "target": "/tmp/small",
                                                             "options": ["size=1m", "nr_inodes=100"]}]}}, file)
        fill = "head -c 3M /dev/zero >/tmp/small/file; stat -c %s /tmp/small/file; rm /tmp/small/file; " \
               "i=0; while echo >/tmp/small/$i; do i=$((i + 1)); done; echo $i files; exit 3"
        result = shell(fill, "--profile", profile)
        self.assertEnds(result, 3, "No space left", f"{MIB}\n")
        self.assertRegex(result.stdout, r"\b9\d files")
        self.assertEnds(shell("head -c 3M /dev/zero >/tmp/file; stat -c %s /tmp/file"), 0, f"{3 * MIB}\n")
        os.unlink(profile)

    def test_a_file_without_end_by_rlimit(self):
        self.assertEnds(shell("head -c 3M /dev/zero >/tmp/file; stat -c %s /tmp/file", "--rlimit", f"fsize={MIB}"), 0, f"{MIB}\n")


class Stubborn(NastyTest):
    def test_closes_everything(self):
        self.assertEnds(shell("exec 0<&- 1>&- 2>&- 3>&- 4>&- 5>&-; sleep 0.1; exit 6"), 6)
        self.assertEnds(shell("exec 0<&- 1>&- 2>&-; while :; do sleep 1; done", "--time-limit", "300ms"), 124)

    def test_ignores_every_signal_that_can_be(self):
        begin = time.monotonic()
        deaf = "trap '' TERM INT HUP QUIT USR1 USR2 ALRM; while :; do sleep 0.05; done"
        self.assertEnds(shell(deaf, "--time-limit", "500ms"), 124)
        self.assertLess(time.monotonic() - begin, 20)
        process = start("--", "/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done")
        self.assertEqual(process.stdout.readline(), "deaf\n")
        process.terminate()
        with self.assertRaises(subprocess.TimeoutExpired, msg="a client may ignore SIGTERM"):
            process.wait(0.3)
        process.kill()
        process.communicate()

    def test_leaves_daemons(self):
        daemon = "(setsid sh -c 'trap \"\" TERM HUP; exec sleep 4321' >/dev/null 2>&1 &) ; "
        process = start("--", "/bin/sh", "-c", daemon + "sleep 0.2; echo up; read line; exit 5", stdin=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), "up\n")
        self.assertTrue(wait_until(lambda: [pid for pid in running("sleep") if "4321" in text(f"/proc/{pid}/cmdline")]), "the control: it is there")
        process.communicate("\n")
        self.assertEqual(process.returncode, 5)
        self.assertFalse([pid for pid in running("sleep") if "4321" in text(f"/proc/{pid}/cmdline")])

    def test_a_daemon_that_keeps_stdout_does_not_keep_the_launcher(self):
        begin = time.monotonic()
        self.assertEnds(shell("setsid sleep 1000 & exit 5"), 5)
        self.assertLess(time.monotonic() - begin, 20)

    def test_stops_itself(self):
        self.assertEnds(shell("kill -STOP $$; exit 5", "--time-limit", "300ms"), 124)
        process = start("--", "/bin/sh", "-c", "kill -STOP $$; exit 5")

        def stopped():
            return [pid for pid in running("sh") if "State:\tT" in text(f"/proc/{pid}/status")]
        self.assertTrue(wait_until(stopped))
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, 5)

    def test_stops_its_init_or_kills_it(self):
        """A process of the namespace cannot do either to its pid 1."""
        self.assertEnds(shell("kill -STOP 1; kill -KILL 1; sleep 0.1; exit 5"), 5)

    def test_ends_before_anybody_looks(self):
        reader, writer = os.pipe()
        for status in range(50):
            result = run("--json-status-fd", str(writer), "--", "/bin/sh", "-c", f"exit {status}", pass_fds=[writer])
            self.assertEnds(result, status)
            said = [json.loads(line) for line in os.read(reader, 65536).decode().splitlines()]
            self.assertGreater(said[0]["child-pid"], 1)
            self.assertEqual(said[-1]["exit-code"], status)
        os.close(reader)
        os.close(writer)

    def test_spins_under_a_limit_on_its_time(self):
        result = shell("while :; do :; done", "--rlimit", "cpu=1", timeout=120)
        self.assertEnds(result, 128 + signal.SIGKILL)
        result = shell("while :; do :; done", "--rlimit", "cpu=1:2", timeout=120)
        self.assertEnds(result, 128 + signal.SIGXCPU)

    def test_writes_to_a_reader_that_is_gone(self):
        process = start("--", "/bin/sh", "-c", "trap '' PIPE; echo up; read line; echo more; exit 5", stdin=subprocess.PIPE,
                        stderr=subprocess.DEVNULL)
        self.assertEqual(process.stdout.readline(), "up\n")
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        self.assertEqual(process.wait(30), 5)


class NobodyListens(NastyTest):
    """stderr that is full, closed, or a pipe without a reader keeps no launch from going on, or from its status."""
    CASES = {  # what is said, then the status and the arguments
        "": (3, ["run", "--quiet", "--", "/bin/sh", "-c", "exit 3"]),
        "no-such": (127, ["run", "--quiet", "--", "/no-such"]),
        "--nonsense": (125, ["run", "--nonsense", "--", "/bin/true"]),
        "the time limit was hit": (124, ["run", "--quiet", "--time-limit", "200ms", "--", "/bin/sleep", "9"]),
        "weakens the sandbox": (0, ["run", "--cap-add", "net_admin", "--", "/bin/true"]),
        "Unknown option": (1, ["bwrap", "--nonsense"]),
    }

    def ends(self, words, **kwargs):
        return subprocess.run([POSTERN, *words], stdin=subprocess.DEVNULL, timeout=60, **kwargs)

    def test_the_control_it_is_said(self):
        for said, (status, words) in self.CASES.items():
            result = self.ends(words, capture_output=True, text=True)
            self.assertEqual(result.returncode, status, result.stderr)
            self.assertIn(said, result.stderr)

    def test_stderr_is_full(self):
        for status, words in self.CASES.values():
            with open("/dev/full", "w") as full:
                self.assertEqual(self.ends(words, stderr=full).returncode, status, words)

    def test_stderr_is_closed(self):
        for status, words in self.CASES.values():
            self.assertEqual(self.ends(words, preexec_fn=lambda: os.close(2)).returncode, status, words)

    def test_no_file_of_posterns_takes_the_place_of_a_closed_one(self):
        """What it says would go there: to init's pipe, or to a file of sysfs."""
        for closed in ([2], [1, 2], [0, 1, 2]):
            def close():
                for fd in closed:
                    os.close(fd)

            process = subprocess.Popen([POSTERN, "run", "--quiet", "--", "/bin/sleep", "60"], stdin=subprocess.DEVNULL, preexec_fn=close)
            try:
                wait_until(lambda: running("sleep"))
                fds = {fd: os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in closed}
                self.assertEqual(fds, {fd: "/dev/null" for fd in closed})
                # Its client has there what its caller left: nothing.
                client = running("sleep")[0]
                self.assertEqual([fd for fd in closed if os.path.lexists(f"/proc/{client}/fd/{fd}")], [])
                # Nor does init hold the placeholders, which a client with CAP_SYS_PTRACE could reach there.
                init = text(f"/proc/{process.pid}/task/{process.pid}/children").split()[0]
                self.assertTrue(wait_until(lambda: not [fd for fd in closed if os.path.lexists(f"/proc/{init}/fd/{fd}")]))
            finally:
                process.kill()
                process.wait()
            wait_until(lambda: not running("sleep"))

    def test_stderr_has_no_reader(self):
        for status, words in self.CASES.values():
            reader, writer = os.pipe()
            os.close(reader)
            self.assertEqual(self.ends(words, stderr=writer).returncode, status, words)
            os.close(writer)


class ManyFds(NastyTest):
    """Open files of the launcher's above 1024, of which select(2) and old programs know nothing."""
    LIST = "for fd in /proc/self/fd/*; do readlink $fd; done; echo; ls /proc/self/fd"

    def setUp(self):
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        self.assertGreater(hard, 4200, "raise ulimit -Hn: these tests open fds above 4000")
        resource.setrlimit(resource.RLIMIT_NOFILE, (4200, hard))
        with open("/tmp/secret", "w") as file:
            self.high = [fcntl.fcntl(file, fcntl.F_DUPFD, number) for number in (3, 1023, 1024, 1500, 4100)]

    def tearDown(self):
        for fd in self.high:
            os.close(fd)
        os.unlink("/tmp/secret")
        super().tearDown()

    def test_do_not_leak(self):
        inside = shell(self.LIST, pass_fds=self.high)
        self.assertEnds(inside, 0)
        self.assertNotIn("secret", inside.stdout)
        control = subprocess.run(["/bin/sh", "-c", self.LIST], capture_output=True, text=True, pass_fds=self.high)
        self.assertEqual(control.stdout.count("secret"), len(self.high), "the control: they are there without a sandbox")

    def test_do_not_leak_to_init_or_stay_with_it(self):
        process = start("--", "/bin/sh", "-c", "echo up; read line", stdin=subprocess.PIPE, pass_fds=self.high)
        self.assertEqual(process.stdout.readline(), "up\n")
        holders = {pid for pid, _, target in State().kinds["fd"] if "secret" in target}
        self.assertEqual(holders, {os.getpid(), process.pid}, "this test and the launcher itself")
        process.communicate("\n")

    def test_status_and_info_work_there(self):
        reader, writer = os.pipe()
        fd = fcntl.fcntl(writer, fcntl.F_DUPFD, 2000)
        for option in ("--json-status-fd", "--info-fd"):
            self.assertEnds(run(option, str(fd), "--", "/bin/true", pass_fds=[fd]), 0)
            self.assertIn("child-pid", os.read(reader, 65536).decode())
        for each in (reader, writer, fd):
            os.close(each)

    def test_bubblewraps_command_line_passes_them_on(self):
        inside = run("--bind", "/", "/", "--proc", "/proc", "/bin/sh", "-c", self.LIST, verb="bwrap", pass_fds=self.high)
        self.assertEnds(inside, 0)
        self.assertEqual(inside.stdout.count("secret"), len(self.high))


class LongLines(NastyTest):
    """argv and environment of 1 MiB, in strings of 64 KiB: one may not be longer than 128 KiB."""
    WORDS = [chr(ord("a") + i) * (64 << 10) for i in range(16)]

    def test_arguments(self):
        result = run("--", "/bin/sh", "-c", "printf %s \"$@\" | cksum; echo $#", "sh", *self.WORDS)
        control = subprocess.run(["cksum"], input="".join(self.WORDS), text=True, capture_output=True).stdout
        self.assertEnds(result, 0, control, "\n16\n")

    def test_environment(self):
        env = {f"LONG{i}": word for i, word in enumerate(self.WORDS)}
        flags = [flag for name in env for flag in ("--keepenv", name)]
        script = "printf %s " + " ".join(f'"$LONG{i}"' for i in range(16)) + " | cksum"
        control = subprocess.run(["cksum"], input="".join(self.WORDS), text=True, capture_output=True).stdout
        # Twice: the second launch is one that was kept.
        for _ in range(2):
            self.assertEnds(shell(script, *flags, env={**os.environ, **env}), 0, control)
        kept = sum(os.path.getsize(f"{State.CACHE}/{name}") for name in small_world.cached())
        self.assertLess(kept, 8 * MIB, "what is in the environment is not kept")

    def test_both(self):
        env = {f"LONG{i}": word for i, word in enumerate(self.WORDS)}
        flags = [flag for name in env for flag in ("--keepenv", name)]

        def more_room():
            resource.setrlimit(resource.RLIMIT_STACK, (64 * MIB, resource.getrlimit(resource.RLIMIT_STACK)[1]))
        result = run(*flags, "--", "/bin/sh", "-c", "env | wc -c; echo $#", "sh", *self.WORDS, env={**os.environ, **env},
                     preexec_fn=more_room)
        self.assertEnds(result, 0, "\n16\n")
        self.assertGreater(int(result.stdout.split()[0]), MIB)

    def test_too_much_is_said(self):
        result = run("--rlimit", f"stack={MIB}", "--", "/bin/true", *self.WORDS)
        self.assertEnds(result, 126, "/bin/true: found, but cannot be run", "Argument list too long")

    def test_a_setenv_of_a_long_value(self):
        self.assertEnds(shell("printf %s \"$LONG\" | wc -c", "--setenv", "LONG", self.WORDS[0]), 0, f"{64 << 10}\n")


if __name__ == "__main__":
    POSTERN = os.path.abspath(sys.argv[1]) + "/bin/postern"
    small_world.enter()
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
