#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""pool_test.py BUILD: `postern pool` as a job server of plain sandboxes, without a device: lists, limits, retries, reports, signals.

tests/lab/pool_test.py is about slices of a device."""

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import small_world
from small_world import State, left_since

BUILD = ""


def heed_interrupts():
    """Who was started in the background ignores SIGINT, and so would its pool."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Pool(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="pool-", dir="/srv")  # the sandbox has a /tmp of its own
        os.chmod(self.folder, 0o755)
        self.addCleanup(shutil.rmtree, self.folder)
        self.before = State()

    def tearDown(self):
        self.assertEqual(left_since(self.before), {})

    def pool(self, *words, stdin=None, timeout=60, **more):
        return subprocess.run([f"{BUILD}/bin/postern", "pool", *map(str, words)], input=stdin, capture_output=True, text=True,
                              errors="replace", timeout=timeout, **({} if stdin is not None else {"stdin": subprocess.DEVNULL}), **more)

    def list(self, *lines):
        path = f"{self.folder}/list"
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        return path

    def summary(self, *words, status=0, **more):
        """The summary of a pool that ends with `status`, and its result."""
        path = f"{self.folder}/summary.json"
        result = self.pool("--summary", path, *words, **more)
        self.assertEqual(result.returncode, status, result.stderr)
        with open(path) as file:
            return json.load(file), result

    def assertRefused(self, says, *words, stdin=None):
        result = self.pool(*words, stdin=stdin)
        self.assertEqual((result.returncode, result.stdout, result.stderr.count("\n")), (125, "", 1), result.stdout + result.stderr)
        self.assertIn(says, result.stderr)


class Lists(Pool):
    def test_a_file_stdin_and_arguments_are_the_same(self):
        lines = ["# a comment", "", "echo one 'two  three'", "echo $((6 * 7))"]
        self.assertRefused("line 4: there is no shell", "--commands", self.list(*lines))
        lines[-1] = "sh -c 'echo $((6 * 7))'"
        for words, stdin in ((["--commands", self.list(*lines)], None), (["--commands", "-"], "\n".join(lines)), (["--", ":::", *lines[2:]], None)):
            summary, result = self.summary("--jobs", 1, *words, stdin=stdin)
            self.assertIn("one two  three\n", result.stdout)
            self.assertIn("42\n", result.stdout)
            self.assertEqual([job["command"] for job in summary["jobs"]], [["echo", "one", "two  three"], ["sh", "-c", "echo $((6 * 7))"]])
        summary, _ = self.summary("--", "echo", "-{}-", ":::", "a", "b c")
        self.assertEqual([job["command"] for job in summary["jobs"]], [["echo", "-a-"], ["echo", "-b c-"]])

    def test_what_is_no_list(self):
        self.assertRefused("no command", "--commands", self.list("# nothing"))
        self.assertRefused("/nonexistent", "--commands", "/nonexistent")
        self.assertRefused("leave \"true\" out", "--commands", self.list("true"), "--", "true")
        self.assertRefused("nothing stands behind", "--", "true", ":::")
        self.assertRefused("--retry is for a list", "--retry", "1", "--", "true")
        self.assertRefused("--device is required", "--", "true")

    def test_what_goes_not_together(self):
        jobs = self.list("true")
        self.assertRefused("has no device", "--commands", jobs, "--reset", "device")
        self.assertRefused("cannot write in its folder", "--commands", jobs, "--junit", "/nonexistent/x.xml")
        self.assertRefused("is a folder", "--commands", jobs, "--summary", self.folder)
        self.assertRefused("--jobs", "--commands", jobs, "--jobs", "0")
        self.assertRefused("--timeout", "--commands", jobs, "--timeout", "soon")
        self.assertRefused("--keep-going", "--commands", jobs, "--keep-going", "--fail-fast")
        self.assertRefused("runs nothing", "--ctest-resources", "-", "--commands", jobs)

    def test_a_slice_that_a_job_could_keep(self):
        """Refused before the device is looked at, of which there is none."""
        def said(forward):
            path = f"{self.folder}/{forward}.json"
            with open(path, "w") as file:
                json.dump({"postern": 1, "device": {"forward": forward, "windows": [{"name": "w", "region": "bar0", "offset": 0, "length": 4096}]}}, file)
            result = self.pool("--device", "ffff:ff:1f.7", "--profile", path, "--", "true", ":::", "1", "2")
            self.assertEqual(result.returncode, 125, result.stderr)
            return result.stderr
        self.assertIn("would keep the slice beside the next job", said("anyone"))
        for forward in ("sandbox", "never"):
            self.assertIn("there is no such PCI device", said(forward))

    def test_what_a_job_sees(self):
        script = "echo job $POSTERN_JOB slice $POSTERN_SLICE; cat; test ! -t 0 || echo terminal; ls /proc/self/fd | wc -w"
        summary, result = self.summary("--jobs", 2, "--", "sh", "-c", script, "{}", ":::", "1", "2", "3", stdin="not for jobs")
        for job in summary["jobs"]:
            self.assertIn(f"job {job['job']} slice {job['slice']}\n4\n", result.stdout)
            self.assertIn(job["slice"], (0, 1))

    def test_plan(self):
        result = self.pool("--dry-run", "--commands", self.list("echo 'a b'", "false"))
        self.assertEqual(json.loads(result.stdout)["jobs"], [{"job": 1, "command": ["echo", "a b"]}, {"job": 2, "command": ["false"]}])


class Running(Pool):
    def test_at_most_so_many_at_once(self):
        for jobs in (1, 3):
            # The first ones wait until as many run as may, on a slow machine, too; then for who should not.
            script = (f"mkdir /mnt/run/$POSTERN_JOB; until [ -e /mnt/full ] || [ $(ls /mnt/run | wc -l) -ge {jobs} ]; do sleep 0.05; done; touch /mnt/full; "
                      "sleep 0.5; ls /mnt/run | wc -l; rmdir /mnt/run/$POSTERN_JOB")
            place = f"{self.folder}/{jobs}"
            for folder in (place, f"{place}/run"):
                os.mkdir(folder)
                os.chmod(folder, 0o777)
            result = self.pool("--jobs", jobs, "--bind", place, "/mnt", "--", "sh", "-c", script, "{}", ":::", *range(4))
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            seen = [int(line) for line in result.stdout.split("\n") if line.isdigit()]
            self.assertEqual(len(seen), 4, result.stdout)
            self.assertEqual(max(seen), jobs)

    def test_output_is_whole(self):
        script = "for i in 1 2 3 4 5 6 7 8 9; do echo $POSTERN_JOB; sleep 0.01; echo $POSTERN_JOB >&2; done; printf end"
        result = self.pool("--jobs", 4, "--quiet", "--", "sh", "-c", script, "{}", ":::", *range(8))
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        blocks = result.stdout.split("==> job ")[1:]
        self.assertEqual(len(blocks), 8)
        for block in blocks:
            number = block.split(" ")[0]
            self.assertEqual(block.split("\n", 1)[1], f"{number}\n" * 18 + "end\n")

    def test_statuses(self):
        jobs = self.list("true", "sh -c 'exit 3'", "sh -c 'kill -SEGV $$'", "sleep 60", "/nonexistent", "/etc/passwd")
        summary, result = self.summary("--timeout", "10s", "--commands", jobs, status=139)
        told = [(job["state"], job["status"], job["reason"], job["signal"]) for job in summary["jobs"]]
        self.assertEqual(told, [("passed", 0, "status", None), ("failed", 3, "status", None), ("failed", 139, "signal", "SIGSEGV"),
                                ("failed", 124, "time", None), ("failed", 127, "error", None), ("failed", 126, "error", None)])
        self.assertEqual(summary["status"], 139)
        self.assertIn("6 jobs: 1 passed, 5 failed", result.stderr)
        for words, status in ((["true"], 0), (["sh -c 'exit 3'", "true"], 3), (["sleep 60", "sh -c 'exit 3'"], 124), (["/nonexistent", "true"], 127),
                              (["/etc/passwd"], 126)):
            self.assertEqual(self.pool("--timeout", "10s", "--", ":::", *words).returncode, status, words)

    def test_retry_until_it_works(self):
        count = f"{self.folder}/count"
        os.mkdir(count)
        os.chmod(count, 0o777)
        script = f"mkdir {count}/$(ls {count} | wc -l); ls {count} | wc -l; test $(ls {count} | wc -l) -ge 3"
        logs = f"{self.folder}/logs"
        summary, result = self.summary("--retry", 4, "--log-dir", logs, "--bind", count, count, "--", "sh", "-c", script, "{}", ":::", "x")
        job = summary["jobs"][0]
        self.assertEqual(([each["status"] for each in job["attempts"]], job["state"]), ([1, 1, 0], "passed"))
        self.assertEqual(sorted(os.listdir(logs)), ["001-sh.2.log", "001-sh.3.log", "001-sh.log"])
        for number, name in enumerate(("001-sh.log", "001-sh.2.log", "001-sh.3.log"), 1):
            with open(f"{logs}/{name}") as file:
                self.assertEqual(file.read(), f"{number}\n")
        self.assertEqual(result.stderr.count("it will be tried again"), 2)
        self.assertEqual(result.stdout, "")
        summary, _ = self.summary("--retry", 2, "--", ":::", "false", status=1)
        self.assertEqual(len(summary["jobs"][0]["attempts"]), 3)

    def test_fail_fast(self):
        os.chmod(self.folder, 0o777)  # the client is nobody
        # The second fails once the third runs, and that ends later.
        lines = ["sh -c 'until [ -e /mnt/up ]; do sleep 0.05; done; exit 2'", "sh -c 'touch /mnt/up; sleep 6; echo ended'"]
        for flag, not_run in (("--fail-fast", 1), ("--keep-going", 0)):
            summary, result = self.summary("--bind", self.folder, "/mnt", "--jobs", 2, flag, "--commands", self.list("true", *lines, "true"), status=2)
            os.remove(f"{self.folder}/up")
            self.assertEqual(summary["count"]["not run"], not_run)
            self.assertIn("ended", result.stdout, "what runs is let run")

    def test_limits_of_the_profile_hold(self):
        if "pids" not in small_world.controllers():
            self.assertRefusedLimits()
            return
        profile = f"{self.folder}/p.json"
        with open(profile, "w") as file:
            json.dump({"postern": 1, "sandbox": {"cgroup": {"pids.max": "3"}}}, file)
        summary, _ = self.summary("--profile", profile, "--jobs", 2, "--", "sh", "-c", "sleep {} & sleep {} & sleep {} & wait", "{}", ":::", "0.1", "0.2",
                                  status=2)
        self.assertEqual(summary["count"]["failed"], 2)

    def assertRefusedLimits(self):
        """Where there is no controller a limit is no launch; all that was to run is told to have failed."""
        profile = f"{self.folder}/p.json"
        with open(profile, "w") as file:
            json.dump({"postern": 1, "sandbox": {"cgroup": {"pids.max": "3"}}}, file)
        summary, result = self.summary("--profile", profile, "--jobs", 2, "--", ":::", "true", "true", "true", status=125)
        self.assertEqual((summary["count"]["failed"], summary["count"]["passed"]), (1, 0), summary)
        self.assertIn("pids", summary["problem"])

    def test_a_log_is_replaced_and_not_written_through(self):
        logs, precious = f"{self.folder}/logs", f"{self.folder}/precious"
        os.mkdir(logs)
        with open(precious, "w") as file:
            file.write("mine")
        os.symlink(precious, f"{logs}/001-echo.log")
        self.assertEqual(self.pool("--log-dir", logs, "--", "echo", ":::", "theirs").returncode, 0)
        with open(precious) as file:
            self.assertEqual(file.read(), "mine")
        with open(f"{logs}/001-echo.log") as file:
            self.assertEqual(file.read(), "theirs\n")

    def test_who_does_not_listen_ends_nothing(self):
        reader, writer = os.pipe()
        os.close(reader)
        process = subprocess.Popen([f"{BUILD}/bin/postern", "pool", "--", "seq", ":::", "100000", "100000"], stdin=subprocess.DEVNULL, stdout=writer,
                                   stderr=subprocess.PIPE, text=True)
        os.close(writer)
        _, said = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, said)

    def test_a_terminal_sees_one_line(self):
        master, slave = pty.openpty()
        process = subprocess.Popen([f"{BUILD}/bin/postern", "pool", "--jobs", "1", "--", "sleep", ":::", "0.2", "0.2"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=slave, env={**os.environ, "TERM": "xterm"})
        os.close(slave)
        said = b""
        try:
            while chunk := os.read(master, 4096):
                said += chunk
        except OSError:
            pass
        os.close(master)
        self.assertEqual(process.wait(timeout=60), 0)
        self.assertRegex(said, rb"\r1 of 2 done, 1 running, \d+:\d\d\x1b\[K\r")
        self.assertEqual(said.count(b"\n"), 1, said)
        self.assertTrue(said.split(b"\r\x1b[K")[-1].startswith(b"postern: 2 jobs: 2 passed"), said)


class Reports(Pool):
    def test_junit(self):
        path = f"{self.folder}/junit.xml"
        jobs = self.list("printf 'a<b>&\\033[1m\\001\\377]]>\\n'", "sh -c 'echo bad; exit 3'", "sleep 60", "/nonexistent", "sh -c 'yes | head -c 200000; exit 4'", "true", "true")
        result = self.pool("--jobs", 1, "--timeout", "10s", "--junit", path, "--commands", jobs)
        self.assertEqual(result.returncode, 127, result.stderr)
        suites = xml.etree.ElementTree.parse(path).getroot()
        self.assertEqual((suites.tag, len(suites)), ("testsuites", 1))
        suite = suites[0]
        self.assertEqual([suite.get(key) for key in ("tests", "failures", "errors", "skipped")], ["7", "3", "1", "0"])
        cases = suite.findall("testcase")
        self.assertEqual(len({case.get("name") for case in cases}), 7)
        self.assertEqual([[child.tag for child in case] for case in cases],
                         [["system-out"], ["failure", "system-out"], ["failure"], ["error"], ["failure", "system-out"], [], []])
        self.assertEqual(cases[0][0].text, "a<b>&\u241b[1m\u2401\ufffd]]>\n")
        self.assertTrue(cases[4][1].text.startswith("[134464 bytes before this are left out]\n"), cases[4][1].text[:100])
        if shutil.which("xmllint"):
            self.assertEqual(subprocess.run(["xmllint", "--noout", path]).returncode, 0)
        self.assertEqual(os.listdir(self.folder), [name for name in os.listdir(self.folder) if name in ("junit.xml", "list")], "no temporary file")

    def test_summary_on_stdout_is_all_there(self):
        result = self.pool("--summary", "-", "--", "echo", ":::", "a")
        self.assertEqual(json.loads(result.stdout)["count"], {"jobs": 1, "passed": 1, "failed": 0, "not run": 0})
        self.assertIn("a\n", result.stderr)

    def test_a_report_that_cannot_be_written_is_a_failure(self):
        if not os.path.exists("/dev/full"):
            self.fail("no /dev/full")
        with open("/dev/full", "w") as full:
            process = subprocess.run([f"{BUILD}/bin/postern", "pool", "--summary", "-", "--", "true", ":::", "a"], stdin=subprocess.DEVNULL, stdout=full,
                                     stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(process.returncode, 125)


class Signals(Pool):
    def start(self, *words):
        process = subprocess.Popen([f"{BUILD}/bin/postern", "pool", "--summary", f"{self.folder}/summary.json", "--junit", f"{self.folder}/junit.xml", *words],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)
        self.addCleanup(process.kill)
        return process

    def end(self, process):
        out, said = process.communicate(timeout=60)
        with open(f"{self.folder}/summary.json") as file:
            summary = json.load(file)
        xml.etree.ElementTree.parse(f"{self.folder}/junit.xml")
        os.remove(f"{self.folder}/summary.json")
        os.remove(f"{self.folder}/junit.xml")
        return summary, out, said

    def wait_for_both(self):
        for job in ("1", "2"):
            for _ in range(3000):
                if os.path.exists(f"{self.folder}/ready{job}"):
                    break
                time.sleep(0.01)
            os.remove(f"{self.folder}/ready{job}")

    def test_first_is_passed_on_and_second_kills(self):
        os.chmod(self.folder, 0o777)  # the client is nobody
        ready = ("--bind", self.folder, "/mnt")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            script = "trap 'echo asked; exit 5' INT TERM HUP; touch /mnt/ready$0; while :; do sleep 0.05; done"
            process = self.start(*ready, "--jobs", "2", "--", "sh", "-c", script, "{}", ":::", "1", "2", "3")
            self.wait_for_both()
            process.send_signal(number)
            summary, out, said = self.end(process)
            self.assertEqual(process.returncode, 128 + number, said)
            self.assertEqual(out.count("\nasked\n"), 2, out)
            self.assertEqual([job["state"] for job in summary["jobs"]], ["failed", "failed", "not run"])
            self.assertEqual(summary["interrupted"], number.name)
            self.assertIn("no further job begins; 2 still run", said)
        script = "trap 'echo asked' INT; touch /mnt/ready$0; while :; do sleep 0.05; done"
        process = self.start(*ready, "--jobs", "2", "--retry", "3", "--", "sh", "-c", script, "{}", ":::", "1", "2", "3")
        self.wait_for_both()
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        self.assertIsNone(process.poll(), "they have not ended by the first")
        self.assertIn("no further job begins", process.stderr.readline())  # it has been read
        process.send_signal(signal.SIGINT)
        summary, out, said = self.end(process)
        self.assertEqual(process.returncode, 130, said)
        self.assertEqual([(job["state"], len(job["attempts"])) for job in summary["jobs"]], [("failed", 1), ("failed", 1), ("not run", 0)])

    def test_at_any_moment(self):
        random.seed(time.time_ns())
        early, span = 0, 0.6
        for _ in range(25):
            process = self.start("--jobs", "4", "--", "sleep", ":::", *["0.05"] * 1000)
            time.sleep(random.uniform(0.05, span))
            process.send_signal(signal.SIGINT)
            if process.wait(timeout=60) == -signal.SIGINT:
                early += 1  # nothing had begun: a start takes longer here
                span = min(1.3 * span, 5)
                process.communicate()
                self.assertEqual(left_since(self.before), {})
                continue
            summary, _, said = self.end(process)
            self.assertEqual(process.returncode, 130, said)
            self.assertEqual(summary["interrupted"], "SIGINT")
            self.assertGreater(summary["count"]["not run"], 0)
            self.assertEqual(left_since(self.before), {})
        self.assertLess(early, 13)

    def test_killed_itself_it_leaves_nothing(self):
        for _ in range(5):
            process = subprocess.Popen([f"{BUILD}/bin/postern", "pool", "--jobs", "3", "--", "sleep", ":::", *["0.1"] * 100], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(random.uniform(0.05, 0.5))
            process.kill()
            process.wait()
            self.assertEqual(left_since(self.before), {})


class Ctest(Pool):
    """A build of three tests on two slices of a profile without a device; `postern run --ctest` needs none of them to be told."""

    def test_spec(self):
        profile = f"{self.folder}/two.json"
        with open(profile, "w") as file:
            json.dump({"postern": 1, "slices": 2}, file)
        spec = f"{self.folder}/spec.json"
        self.assertEqual(self.pool("--profile", profile, "--ctest-resources", spec).returncode, 0)
        shown = self.pool("--profile", profile, "--ctest-resources")
        with open(spec) as file:
            self.assertEqual(json.load(file), json.loads(shown.stdout))
        self.assertEqual(json.loads(shown.stdout)["local"], [{"postern": [{"id": "s0", "slots": 1}, {"id": "s1", "slots": 1}]}])
        with open(f"{self.folder}/CTestTestfile.cmake", "w") as file:
            for name in "abc":
                file.write(f'add_test({name} {BUILD}/bin/postern run --ctest --profile {profile} -- sleep 0.1)\n'
                           f'set_tests_properties({name} PROPERTIES RESOURCE_GROUPS "postern:1")\n')
            file.write(f"add_test(none {BUILD}/bin/postern run --ctest --profile {profile} -- true)\n"
                       "set_tests_properties(none PROPERTIES WILL_FAIL TRUE)\n")
        ran = subprocess.run(["ctest", "-j4", "--resource-spec-file", spec, "--output-on-failure"], cwd=self.folder, capture_output=True, text=True,
                             timeout=60)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertIn("100% tests passed", ran.stdout)

    def test_without_ctest(self):
        for environment, says in (({}, "--resource-spec-file"), ({"CTEST_RESOURCE_GROUP_COUNT": "0"}, "RESOURCE_GROUPS")):
            result = subprocess.run([f"{BUILD}/bin/postern", "run", "--ctest", "--", "true"], capture_output=True, text=True,
                                    env={**os.environ, **environment}, timeout=60)
            self.assertEqual((result.returncode, result.stderr.count("\n")), (125, 1), result.stderr)
            self.assertIn(says, result.stderr)
        both = subprocess.run([f"{BUILD}/bin/postern", "run", "--ctest", "--slice", "1", "--", "true"], capture_output=True, text=True, timeout=60)
        self.assertEqual(both.returncode, 125)


if __name__ == "__main__":
    BUILD = os.path.abspath(sys.argv[1])
    small_world.enter()
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
