#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Containers with slices, as podman's and crun's users start them: postern-crun on the emulated virtio-blk device. Each read is verified;
beside each refusal stands the same container with what is allowed. Runs as root in the guest."""

import json
import os
import re
import signal
import subprocess
import time
import unittest

from container_lab import (BLK, BUILD, CLIENT, CRUN, EDU, HOOK, IMAGE, PATIENCE, POSTERN, SOCKET, ContainerLab, podman_line, postern, processes,
                           setUpModule, tearDownModule, wait_until)  # noqa: F401

READ = ("/bin/virtio-blk-client", "--reads", "500")
PROBED = ("/bin/container-probe", *READ)
NAMES = ["manifest", "device", "window.doorbell", "dma.ring", "irq.vq"]
LOOP = ("/bin/virtio-blk-client", "--seconds", "300", "--report", "0.5")


def kinds(fds):
    """What an fd is, without what differs from run to run."""
    return ["/".join(part for part in fds[number].split(" ")[0].split("/") if part) for number in sorted(fds, key=int)]


class CrunLab(ContainerLab):
    def assertGranted(self, result, callers=(), pid="1", slice=1):
        """The client has its slice, exactly the fds that it should have, and has read."""
        probe, rest = self.read_probe(result)
        names = [*callers, *(name for name in NAMES if name != "window.doorbell" or "window.doorbell" in probe["LISTEN_FDNAMES"])]
        self.assertEqual(probe["LISTEN_FDNAMES"].split(":"), names)
        self.assertEqual(probe["LISTEN_FDS"], str(len(names)))
        self.assertEqual(probe["LISTEN_PID"], str(probe["pid"]))
        if pid is not None:
            self.assertEqual(str(probe["pid"]), pid)
        self.assertEqual(sorted(map(int, probe["fds"])), list(range(3 + len(names))), probe["fds"])
        first = 3 + len(callers)
        self.assertIn("postern-manifest", probe["fds"][str(first)])
        self.assertIn("vfio", probe["fds"][str(first + 1)])
        self.assertIn("500 reads", rest + result.stderr, result.stdout + result.stderr)
        return probe

    def assertRefused(self, result, *says):
        """podman's own output says why, and nothing is left."""
        self.assertNotEqual(result.returncode, 0, result.stdout)
        for words in says:
            self.assertIn(words, result.stderr)
        self.assertEqual(result.stdout.strip(), "")
        self.assertFree()


class Situations(CrunLab):
    """Every way to start a container: LISTEN_* is right, the fds are exact, the device works."""

    def test_plain(self):
        self.assertGranted(self.run_in(*PROBED))
        self.assertFree()

    def test_any_slice(self):
        self.assertGranted(self.run_in(*PROBED, slice="disk"))
        # Without a slice it is crun, and nobody gets anything.
        probe, _ = self.read_probe(self.run_in("/bin/container-probe", slice=None))
        self.assertIsNone(probe["LISTEN_FDS"])
        self.assertEqual(sorted(probe["fds"]), ["0", "1", "2"])

    def test_detached(self):
        self.start("d", *PROBED)
        self.assertEqual(self.podman("wait", "d").stdout.strip(), "0", self.podman("logs", "d").stderr)
        self.assertGranted(self.podman("logs", "d"))
        self.assertFree()

    def test_terminal(self):
        line = podman_line(*self.run_line(*PROBED, flags=["--rm", "-t"]))
        result = subprocess.run(["script", "-qec", " ".join(line), "/dev/null"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=PATIENCE, check=False)
        self.assertTrue(self.assertGranted(result)["terminal"])

    def test_started_again(self):
        self.start("again", *PROBED)
        self.podman("wait", "again")
        for _ in range(2):
            self.assertGranted(self.podman("start", "-a", "again"))
        self.assertFree()

    def test_restart(self):
        """podman itself starts it anew, with fresh fds of a fresh grant, of which `podman exec` has nothing."""
        # LISTEN_PID is for the process that has the grant: handed on, so that there is a status of its own in the end.
        reads = "cat /proc/self/fd/3; echo; (export LISTEN_PID=$(exec sh -c 'echo $PPID'); exec /bin/virtio-blk-client --reads 100); exit 3"
        self.start("restarts", *PROBED[:1], "/bin/sh", "-c", reads, flags=["--restart", "on-failure:2"])

        def all_done():
            return self.inspect("restarts", "{{.RestartCount}} {{.State.Status}}") == "2 exited"
        self.assertTrue(wait_until(all_done, PATIENCE), self.inspect("restarts", "{{json .State}}"))
        logs = self.podman("logs", "restarts")
        said = logs.stdout + logs.stderr
        self.assertEqual(said.count("100 verified"), 3, said + self.inspect("restarts", "{{json .State}}") + self.broker_log())
        self.assertEqual(len(set(re.findall(r'"grant": ?"([0-9a-f]+)"', said))), 3, said)
        probes = [json.loads(line) for line in said.splitlines() if line.startswith('{"pid"')]
        self.assertEqual(len(probes), 3)
        self.assertEqual(len({probe["LISTEN_FDNAMES"] for probe in probes}), 1)
        for probe in probes:
            self.assertEqual(sorted(map(int, probe["fds"])), list(range(3 + int(probe["LISTEN_FDS"]))))
            self.assertEqual(probe["LISTEN_PID"], str(probe["pid"]))
        self.assertFree()

    def test_executed_in_it(self):
        """`podman exec` gets none of the container's fds."""
        self.start("executed", *LOOP)
        self.assertTrue(wait_until(lambda: "completions" in self.said("executed"), PATIENCE))
        probe, _ = self.read_probe(self.podman("exec", "executed", *PROBED[:1]))
        self.assertEqual((probe["LISTEN_FDS"], probe["LISTEN_PID"], sorted(probe["fds"])), (None, None, ["0", "1", "2"]))
        self.podman("rm", "-f", "-t", "0", "executed")
        self.assertFree()

    def test_user_namespace(self):
        self.assertGranted(self.run_in(*PROBED, flags=["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"]))

    def test_read_only(self):
        self.assertGranted(self.run_in(*PROBED, flags=["--read-only"]))

    def test_user(self):
        self.assertEqual(self.assertGranted(self.run_in(*PROBED, flags=["--user", "worker"]))["uid"], 1000)

    def test_without_capabilities(self):
        self.assertEqual(int(self.assertGranted(self.run_in(*PROBED, flags=["--cap-drop", "all"]))["CapEff"], 16), 0)

    def test_own_seccomp_profile(self):
        path = f"{self.folder}/seccomp.json"
        with open(path, "w") as file:
            json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}]}, file)
        self.assertEqual(self.assertGranted(self.run_in(*PROBED, flags=["--security-opt", f"seccomp={path}"]))["Seccomp"], "2")

    def test_privileged(self):
        self.assertGranted(self.run_in(*PROBED, flags=["--privileged"]))

    def test_preserved_fds(self):
        """The caller's own stay where they are."""
        line = podman_line(*self.run_line(*PROBED, flags=["--rm", "--preserve-fds", "2"]))
        words = "exec 3</etc/hostname 4</etc/passwd 7</etc/group; exec \"$@\""
        result = subprocess.run(["bash", "-c", words, "bash", *line], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
                                check=False)
        probe = self.assertGranted(result, callers=["unknown", "unknown"])
        self.assertEqual((probe["fds"]["3"], probe["fds"]["4"]), ("/etc/hostname", "/etc/passwd"))

    def test_init(self):
        probe = self.assertGranted(self.run_in(*PROBED, flags=["--init"]), pid=None)
        self.assertNotEqual(probe["pid"], 1)

    def test_host_pids(self):
        self.assertGreater(self.assertGranted(self.run_in(*PROBED, flags=["--pid", "host"]), pid=None)["pid"], 10)
        self.assertGranted(self.run_in(*PROBED, flags=["--pid", "host", "--user", "worker", "--read-only", "--cap-drop", "all"]), pid=None)

    def test_through_a_shell(self):
        """That becomes its last command."""
        self.assertGranted(self.run_in("/bin/sh", "-c", f"exec {' '.join(PROBED)}"))

    def test_by_cdi(self):
        """podman --device: what it puts in for other runtimes is taken out again."""
        written = postern("cdi", "generate", "-o", "/etc/cdi/postern.json")
        self.assertEqual(written.returncode, 0, written.stderr)
        self.addCleanup(os.unlink, "/etc/cdi/postern.json")
        self.assertGranted(self.run_in(*PROBED, slice=None, flags=["--device", "postern.dev/slice=disk.2"]))
        self.assertGranted(self.run_in(*PROBED, slice="disk.2", flags=["--device", "postern.dev/slice=disk.2"]))
        self.assertGranted(self.run_in("/run/postern/shim", *PROBED, slice=None, flags=["--device", "postern.dev/slice=disk.2"]))
        # Behind an init, too.
        device = ["--device", "postern.dev/slice=disk.2"]
        self.assertNotEqual(self.assertGranted(self.run_in("/run/postern/shim", *PROBED, slice=None, flags=["--init", *device]), pid=None)["pid"], 1)

    def test_with_a_broker(self):
        """One that runs already, and goes on."""
        self.start_broker()
        self.assertGranted(self.run_in(*PROBED))
        self.assertFree()
        self.assertIsNone(self.broker.poll())


class Images(CrunLab):
    """podman 4.3 hands the annotations of an image on as if its user had given them: whoever made an image gets no slice by that."""

    def test_an_annotation_of_an_image(self):
        written = postern("cdi", "generate", "-o", "/etc/cdi/postern.json")
        self.assertEqual(written.returncode, 0, written.stderr)
        self.addCleanup(os.unlink, "/etc/cdi/postern.json")
        with open(f"{self.folder}/Containerfile", "w") as file:
            file.write(f"FROM {IMAGE}\nLABEL made=elsewhere\n")
        built = self.podman("build", "--annotation", "dev.postern.slice=disk.1", "-t", "asks", self.folder)
        self.assertEqual(built.returncode, 0, built.stderr)
        # The control: where all images are trusted, it is the operator's word.
        self.assertGranted(self.run_in(*PROBED, slice=None, image="asks"))
        self.write_config([{"name": "disk", "trust_annotations": False}])
        refused = self.run_in(*PROBED, slice=None, image="asks")
        self.assertRefused(refused, "slice disk.1", "may be the image's", "--device postern.dev/slice=disk.1")
        # Nor one that says to be of no podman's making.
        built = self.podman("build", "--annotation", "dev.postern.slice=disk.1", "--annotation", "io.container.manager=other", "-t", "hides",
                            self.folder)
        self.assertEqual(built.returncode, 0, built.stderr)
        self.assertRefused(self.run_in(*PROBED, slice=None, image="hides"), "may be the image's")
        # Nor does it matter beside what the operator says.
        device = ["--device", "postern.dev/slice=disk"]
        self.assertGranted(self.run_in(*PROBED, slice=None, flags=device, image="asks"))
        # Of an image that asks for nothing, podman's user cannot be told from the image either.
        self.assertRefused(self.run_in(*PROBED, slice="disk.1"), "may be the image's")
        self.assertGranted(self.run_in(*PROBED, slice=None, flags=device))

    def test_an_environment_of_an_image(self):
        """Which says that there are fds already, and what they are called: the client is told of its own alone, or there is none."""
        written = postern("cdi", "generate", "-o", "/etc/cdi/postern.json")
        self.assertEqual(written.returncode, 0, written.stderr)
        self.addCleanup(os.unlink, "/etc/cdi/postern.json")
        flags = [word for each in ("LISTEN_FDS=9", "LISTEN_FDNAMES=device:manifest:evil", "LISTEN_PID=1") for word in ("-e", each)]
        self.assertGranted(self.run_in(*PROBED, flags=flags))
        shim = self.podman("run", "--rm", "--network", "none", "--device", "postern.dev/slice=disk.1", *flags, IMAGE, "/run/postern/shim", *PROBED,
                           runtime="crun")
        self.assertEqual(shim.returncode, 125, shim.stdout)
        self.assertIn("shim: LISTEN_FDS is set", shim.stderr)
        # The control: without a slice they are what the image says.
        plain = self.run_in("/bin/env", slice=None, flags=flags)
        self.assertIn("LISTEN_FDS=9", plain.stdout)

    def test_what_is_executed_in_the_container_is_a_copy(self):
        """Where pids are shared a program of postern's is its first: somebody else there may open that to write (CVE-2019-5736)."""
        def share_pids(config):
            config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
        with self.bundle(*PROBED, change=share_pids) as folder, open(f"{self.folder}/out", "w+") as out:
            made = subprocess.run([CRUN, "create", "--bundle", folder, "shared"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
            self.assertEqual(made.returncode, 0)
            pid = json.loads(self.crun("state", "shared").stdout)["pid"]
            files = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            self.assertEqual([path for path in files.values() if path.startswith(BUILD)], [])
            program, = [fd for fd, path in files.items() if "listen-pid" in path]
            with self.assertRaises(PermissionError):
                with open(f"/proc/{pid}/fd/{program}", "r+b", buffering=0) as file:
                    file.write(b"#!/bin/sh")
            self.assertEqual(self.crun("start", "shared").returncode, 0)
            self.assertTrue(wait_until(lambda: json.loads(self.crun("state", "shared").stdout)["status"] == "stopped", PATIENCE))
            self.assertEqual(self.crun("delete", "shared").returncode, 0)
            out.seek(0)
            said = out.read()
            self.assertEqual(json.loads(said.splitlines()[0])["LISTEN_PID"], str(pid))
            self.assertIn("500 reads", said)
        self.assertFree()


class Crun(CrunLab):
    """crun without podman."""

    def test_run(self):
        with self.bundle(*PROBED) as folder:
            with open(f"{folder}/config.json") as file:
                before = file.read()
            self.assertGranted(self.crun("run", "-b", folder, "one"))
            with open(f"{folder}/config.json") as file:
                self.assertEqual(file.read(), before)
        self.assertFree()

    def test_create_and_start(self):
        with self.bundle(*PROBED) as folder:
            path = f"{self.folder}/out"
            with open(path, "w") as out:
                made = subprocess.run([CRUN, "create", "--bundle", folder, "two"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
            self.assertEqual(made.returncode, 0)
            grant, = self.kept()
            # Between the two it is a sandbox, in a cgroup of the container's.
            state = json.loads(self.crun("state", "two").stdout)
            self.assertEqual(state["annotations"]["dev.postern.grant"], grant["grant"])
            self.assertEqual(state["pid"], grant["pid"])
            self.assertEqual(self.crun("start", "two").returncode, 0)
            self.assertTrue(wait_until(lambda: json.loads(self.crun("state", "two").stdout)["status"] == "stopped", PATIENCE))
            self.assertEqual(self.crun("delete", "two").returncode, 0)
            with open(path) as file:
                self.assertIn("500 reads", file.read())
        self.assertFree()

    def test_socket_activation(self):
        """LISTEN_FDS of the caller's: crun passes them on, and their names go with them."""
        with self.bundle(*PROBED) as folder:
            words = "exec 3</etc/hostname 4</etc/passwd; LISTEN_FDS=1 LISTEN_FDNAMES=http LISTEN_PID=$$ exec \"$@\""
            result = subprocess.run(["bash", "-c", words, "bash", CRUN, "run", "--preserve-fds=1", "-b", folder, "three"],
                                    stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
            self.assertGranted(result, callers=["http", "unknown"])

    def test_socket_activation_through_podman(self):
        """Which makes --preserve-fds of LISTEN_FDS, and since 4.8 passes both on: they are the same fds."""
        with self.bundle(*PROBED) as folder:
            words = "exec 3</etc/hostname; LISTEN_FDS=1 LISTEN_FDNAMES=http LISTEN_PID=1 exec \"$@\""
            result = subprocess.run(["bash", "-c", words, "bash", CRUN, "run", "--preserve-fds=1", "-b", folder, "same"],
                                    stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
            self.assertGranted(result, callers=["http"])

    def test_again_and_again(self):
        """The last one's runtime had the files of its grant as long as it lived."""
        self.start_broker()
        with self.bundle("/bin/virtio-blk-client", "--reads", "100") as folder:
            for i in range(8):
                result = self.crun("run", "-b", folder, f"again-{i}")
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn("100 verified", result.stdout)

    def test_a_gap_is_refused(self):
        with self.bundle(*PROBED) as folder:
            result = self.crun("run", "--preserve-fds=2", "-b", folder, "four")
            self.assertEqual(result.returncode, 1)
            self.assertIn("fd 3 is not open", result.stderr)
            self.assertGranted(self.crun("run", "-b", folder, "four"))

    def test_what_it_does_not_understand(self):
        with self.bundle(*PROBED) as folder, self.bundle("/bin/true", slice=None) as plain:
            result = self.crun("run", "--future", "-b", folder, "five")
            self.assertEqual(result.returncode, 1)
            self.assertIn("--future is not known", result.stderr)
            self.assertIn("asks for a slice", result.stderr)
            # Without a slice it is crun's to refuse, and to do.
            self.assertIn("unrecognized option", self.crun("run", "--future", "-b", plain, "five", cwd="/").stderr)
            self.assertEqual(self.crun("run", "-b", plain, "five").returncode, 0)
        self.assertEqual(self.crun("--version").stdout.split()[0], "crun")

    def test_no_crun(self):
        with self.bundle(*PROBED) as folder:
            result = self.crun("run", "-b", folder, "six", env={"PATH": "/bin", "POSTERN_CRUN": "/nowhere"})
            self.assertEqual(result.returncode, 1)
            self.assertEqual(result.stderr, "postern: POSTERN_CRUN=/nowhere: is not a program\n")

    def test_log(self):
        """As crun logs its own errors."""
        with self.bundle(*PROBED, slice="disk.7") as folder:
            for form in ("json", "text"):
                path = f"{self.folder}/log.{form}"
                result = self.crun(f"--log-format={form}", "--log", path, "run", "-b", folder, "seven")
                said = "postern: slice disk.7: there is no slice \"disk.7\"; did you mean \"disk.0\"?"
                self.assertEqual(result.stderr, said + "\n")
                with open(path) as file:
                    logged = file.read()
                self.assertEqual(json.loads(logged)["msg"] if form == "json" else logged, said if form == "json" else said + "\n")


class Ends(CrunLab):
    """Every way in which a container ends gives its slice back."""

    def begin(self, name="ends", **kwargs):
        self.start(name, *LOOP, **kwargs)
        self.assertTrue(wait_until(lambda: "completions" in self.said(name), PATIENCE), self.podman("logs", name).stderr)
        return self.pid_of(name)

    def assertEnds(self, end):
        end(self.begin())
        self.podman("rm", "-f", "-t", "0", "ends")
        self.assertFree()
        # Another has it.
        self.assertGranted(self.run_in(*PROBED))

    def test_killed(self):
        self.assertEnds(lambda pid: os.kill(pid, signal.SIGKILL))

    def test_podman_kill(self):
        self.assertEnds(lambda _: self.podman("kill", "ends"))

    def test_stop(self):
        self.assertEnds(lambda _: self.podman("stop", "-t", "1", "ends"))

    def test_removed(self):
        self.assertEnds(lambda _: None)

    def test_free_at_once(self):
        """When `podman rm` is back, so is the slice."""
        self.begin()
        self.podman("rm", "-f", "-t", "0", "ends")
        self.assertGranted(self.run_in(*PROBED))

    def test_killed_and_replaced(self):
        """Before podman has noticed."""
        for _ in range(3):
            os.kill(self.begin(), signal.SIGKILL)
            self.assertGranted(self.run_in(*PROBED))
            self.podman("rm", "-f", "-t", "0", "ends")

    def test_restarted(self):
        self.begin()
        for _ in range(2):
            restarted = self.podman("restart", "-t", "0", "ends")
            self.assertEqual(restarted.returncode, 0, restarted.stderr)
        self.podman("rm", "-f", "-t", "0", "ends")
        self.assertFree()

    def test_paused(self):
        """`podman pause`, a new name, a restart; and the end of one that stands still. Others start and end beside it."""
        self.start_broker()
        self.begin()
        first, = self.grants()
        self.assertEqual(self.podman("pause", "ends").returncode, 0)
        time.sleep(1)
        stands = self.said("ends").count("completions")
        self.assertGranted(self.run_in(*PROBED, slice="disk.2"), slice=2)
        self.assertEqual(self.said("ends").count("completions"), stands)
        self.assertEqual([(each["grant"], each["state"]) for each in self.grants()], [(first["grant"], "live")])
        self.assertEqual(self.podman("unpause", "ends").returncode, 0)
        self.assertTrue(wait_until(lambda: self.said("ends").count("completions") > stands, PATIENCE), "it goes on")
        renamed = self.podman("rename", "ends", "other")
        self.assertEqual(renamed.returncode, 0, renamed.stderr)
        restarted = self.podman("restart", "-t", "0", "other")
        self.assertEqual(restarted.returncode, 0, restarted.stderr)
        second, = self.grants()
        self.assertEqual((second["slice"], second["grant"] != first["grant"]), (first["slice"], True))
        self.assertEqual(self.podman("pause", "other").returncode, 0)
        removed = self.podman("rm", "-f", "-t", "0", "other")
        self.assertEqual(removed.returncode, 0, removed.stderr)
        self.assertFree()
        self.assertGranted(self.run_in(*PROBED))

    def test_failed_create(self):
        self.assertRefused(self.run_in("/bin/nowhere"), "/bin/nowhere")
        self.assertRefused(self.run_in(*PROBED, flags=["--ulimit", "nofile=999999999999:999999999999"]))
        self.assertGranted(self.run_in(*PROBED))

    def test_created_and_never_started(self):
        with self.bundle(*PROBED) as folder:
            with open(f"{self.folder}/out", "w") as out:
                made = subprocess.run([CRUN, "create", "-b", folder, "never"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
            self.assertEqual(made.returncode, 0)
            self.assertEqual(len(self.kept()), 1)
            self.assertEqual(self.crun("delete", "-f", "never").returncode, 0)
        self.assertFree()

    def test_a_failed_hook_of_somebody_elses(self):
        """After the container has its grant."""
        def change(config):
            config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
        with self.bundle(*PROBED, change=change) as folder:
            self.assertNotEqual(self.crun("run", "-b", folder, "hooked").returncode, 0)
        self.assertFree()

    def test_killed_runtime(self):
        """crun run in the foreground, killed with its container behind it."""
        with self.bundle(*LOOP) as folder:
            with subprocess.Popen([CRUN, "run", "-b", folder, "fg"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
                # crun may write down that there is such a container a moment after that runs.
                self.assertTrue(wait_until(lambda: self.running() and self.crun("state", "fg").returncode == 0, PATIENCE))
                process.kill()
                process.wait()
            self.assertEqual(self.crun("delete", "-f", "fg").returncode, 0)
        self.assertFree()


class Refusals(CrunLab):
    """What is asked for is checked before anything starts."""

    def test_unknown_slice(self):
        self.assertRefused(self.run_in(*PROBED, slice="disc.1"), 'there is no slice "disc.1"; did you mean "disk.1"?')
        self.assertRefused(self.run_in(*PROBED, slice="disk.4"), 'there is no slice "disk.4"')
        self.assertRefused(self.run_in(*PROBED, slice="a b"), "is not the name of a slice")

    def test_busy(self):
        self.start("has-it", *LOOP)
        pid = self.pid_of("has-it")
        begun = time.monotonic()
        result = self.run_in(*PROBED)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(f"slice disk.1: {BLK}: in use: slice 1: pid {pid}", result.stderr)
        self.assertLess(time.monotonic() - begun, PATIENCE)
        self.assertGranted(self.run_in(*PROBED, slice="disk.2"))
        self.assertEqual(self.inspect("has-it", "{{.State.Running}}"), "true")

    def test_wrong_hardware(self):
        self.write_config([{"name": "edu", "device": EDU, "bind": True}])
        self.assertRefused(self.run_in(*PROBED, slice="edu.0"), "virtio-blk-queue")

    def test_an_ordinary_user_and_no_broker(self):
        """Who has read that a container gets a slice, and is not root."""
        with self.bundle(*PROBED) as folder:
            os.chmod(self.folder, 0o755)
            subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
            result = subprocess.run(["setpriv", "--reuid=5", "--regid=5", "--clear-groups", CRUN, "--root", "/tmp/crun-of-5", "run", "-b", folder, "mine"],
                                    stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
            self.assertRefused(result, "no broker serves /run/postern-broker/socket", "only root can start one", "systemctl enable --now")
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
            self.assertGranted(self.crun("run", "-b", folder, "mine"))

    def test_an_ordinary_user_who_is_root_of_a_user_namespace(self):
        """As podman without root calls the runtime and the hooks: files of root's are somebody else's there."""
        as_podman = ["setpriv", "--reuid=5", "--regid=5", "--clear-groups", "unshare", "-Ur"]

        def ask(*command, **kwargs):
            return subprocess.run([*as_podman, *command], capture_output=True, text=True, timeout=PATIENCE, check=False, **kwargs)
        with self.bundle(*PROBED) as folder:
            os.chmod(self.folder, 0o755)
            subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
            with open(f"{folder}/config.json") as file:
                config = file.read()
            state = json.dumps({"ociVersion": "1.0.2", "id": "mine", "status": "created", "pid": os.getpid(), "bundle": folder})
            for said in (ask(CRUN, "--root", "/tmp/crun-of-5", "run", "-b", folder, "mine", stdin=subprocess.DEVNULL),
                         ask(HOOK, "createRuntime", "--slice", "disk.0", input=state)):
                self.assertRefused(said, "podman without root", "start it as root")
                self.assertEqual(len(said.stderr.splitlines()), 1, said.stderr)
                for misleading in ("chown", "remove it", "cannot make"):
                    self.assertNotIn(misleading, said.stderr)
            # The controls: what asks for nothing is made, and root's gets a slice.
            plain = ask(HOOK, "precreate", input=json.dumps({key: value for key, value in json.loads(config).items() if key != "annotations"}))
            self.assertEqual((plain.returncode, plain.stderr), (0, ""))
            self.assertGranted(self.crun("run", "-b", folder, "mine"))

    def test_nothing_configured(self):
        self.write_config([])
        self.assertRefused(self.run_in(*PROBED), "no device is configured")

    def test_no_guard(self):
        """A broker that cannot be started."""
        name = "/sys/kernel/security/lsm"
        hidden = f"{self.folder}/lsm"
        with open(hidden, "w") as file:
            file.write("capability")
        subprocess.run(["mount", "--bind", hidden, name], check=True)
        try:
            self.assertRefused(self.run_in(*PROBED), "postern: slice disk.1: the guard:", "lsm")
        finally:
            subprocess.run(["umount", name], check=True)
        self.assertGranted(self.run_in(*PROBED))

    def test_without_cgroup(self):
        """The guard would not know its sandbox."""
        with self.bundle(*PROBED) as folder:
            result = self.crun("--cgroup-manager=disabled", "run", "-b", folder, "bare")
            self.assertRefused(result, "postern-oci-hook: ", "has no cgroup of its own")
            self.assertGranted(self.crun("run", "-b", folder, "bare"))


class Four(CrunLab):
    """Four containers on the four slices of one device, each in its hot loop."""

    def counts(self):
        return {name: self.said(name).count("completions") for name in self.names}

    def test_four(self):
        self.start_broker()
        self.names = [f"four{i}" for i in range(4)]
        pids = {}
        for i, name in enumerate(self.names):
            self.start(name, *LOOP, slice=f"disk.{i}")
        for name in self.names:
            self.assertTrue(wait_until(lambda n=name: "completions" in self.said(n), PATIENCE), self.podman("logs", name).stderr)
            pids[name] = self.pid_of(name)
        # The broker is not needed by those who run.
        self.broker.terminate()
        self.broker.wait(PATIENCE)
        self.broker = None
        others = ("four0", "four1", "four3")

        def go_on():
            """Each of them, from here on."""
            before = self.counts()
            self.assertTrue(wait_until(lambda: all(self.counts()[name] > before[name] for name in others), 60),
                            (before, self.counts(), {name: self.said(name)[-300:] for name in others}))
        go_on()
        os.kill(pids["four2"], signal.SIGKILL)
        go_on()
        self.podman("wait", "four2")
        self.podman("rm", "-f", "-t", "0", "four2")
        self.assertGranted(self.run_in(*PROBED, slice="disk.2"), slice=2)
        self.start("four2", *LOOP, slice="disk.2")
        self.assertTrue(wait_until(lambda: "completions" in self.said("four2"), PATIENCE))
        go_on()
        for name in others:
            self.assertEqual(self.pid_of(name), pids[name])
            self.assertNotIn("virtio-blk-client:", self.said(name))
        # The next broker knows them all.
        self.start_broker()
        self.assertEqual(sorted(grant["slice"] for grant in self.grants()), [0, 1, 2, 3])
        self.podman("rm", "-a", "-f", "-t", "0")
        self.assertFree()


if __name__ == "__main__":
    unittest.main(verbosity=2)
