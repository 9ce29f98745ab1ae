#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The hostile client in containers, all of it, by both ways in which a container gets its slice: the guard follows. What is around
the guard is podman's to keep: what that lets its root do is listed here, and all else is refused. The probes' positive control, all of it
outside, is e2e_test.py's. Runs as root in the guest."""

import contextlib
import errno
import json
import os
import subprocess
import unittest

from container_lab import CRUN, EDU, POSTERN, ContainerLab, postern, setUpModule, tearDownModule  # noqa: F401

EVERY_WINDOW = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "hostile", "every-window.json"))
HOSTILE = ("/bin/hostile-client", "--json")
#: What podman lets a container's root do: in namespaces of its own and to the container's own files.
PODMANS = {"files/root-write", "files/etc-passwd-write", "namespaces/unshare-user", "namespaces/clone-user", "namespaces/clone-mount",
           "namespaces/clone3-user", "mounts/chroot", "kernel/syslog", "kernel/keyctl", "identity/setuid-root", "identity/setgid-root",
           "identity/setresuid-root", "identity/setgroups", "identity/setfsuid-root", "identity/bounding-set", "identity/securebits", "identity/chown",
           "hygiene/environment", "hygiene/new-privileges", "hygiene/capabilities", "hygiene/root-inside"}
UNFILTERED = {"bpf/bpf-load-socket-filter", "bpf/bpf-map-create", "kernel/add-key", "hygiene/no-seccomp"}
WITHOUT_USERNS = {"hygiene/root-outside"}
SPECIFICATION = "/etc/cdi/postern.json"
#: Root of the machine, as far as podman lets it: no user namespace, and without a filter before the guard.
ROOT = ["--security-opt", "seccomp=unconfined"]
USERNS = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"]


class HostileInContainers(ContainerLab):
    def setUp(self):
        super().setUp()
        self.write_config([{"name": "disk", "profile": EVERY_WINDOW}])
        os.makedirs("/etc/cdi", exist_ok=True)
        made = postern("cdi", "generate", "-o", SPECIFICATION)
        self.assertEqual(made.returncode, 0, made.stderr)

    def tearDown(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SPECIFICATION)
        super().tearDown()

    def hostile(self, *flags, runtime=CRUN, words=HOSTILE):
        result = self.podman("run", "--rm", "--network", "none", "--device", "postern.dev/slice=disk.1", *flags, "lab", *words, runtime=runtime,
                             timeout=900)
        self.assertEqual(result.returncode, 1, result.stdout[-4000:] + result.stderr + self.broker_log())
        probes = json.loads(result.stdout)["probes"]
        verdicts = [each["verdict"] for each in probes]
        print(f"    {len(probes)} probes: { {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))} }", flush=True)
        self.assertGreater(len(probes), 290)
        allowed = PODMANS | (set() if "--uidmap" in flags else WITHOUT_USERNS) | (UNFILTERED if ROOT[1] in flags else set())
        self.assertEqual({f"{each['group']}/{each['name']}" for each in probes if not each["expected"]}, allowed)
        self.assertEqual({each["verdict"] for each in probes if not each["expected"]}, {"ALLOWED"}, "and no control is broken")
        self.assertFree()

    def by_cdi(self, *flags):
        self.hostile(*flags, runtime="crun", words=("/run/postern/shim", *HOSTILE))

    def test_root_by_postern_crun(self):
        self.hostile(*ROOT)

    def test_root_by_cdi(self):
        self.by_cdi(*ROOT)

    def test_as_podman_has_it_by_postern_crun(self):
        self.hostile()

    def test_user_namespace_by_postern_crun(self):
        self.hostile(*ROOT, *USERNS)

    def test_user_namespace_by_cdi(self):
        self.by_cdi(*USERNS)

    def test_an_owner_in_sight(self):
        """A container that sees the machine's processes and may trace them: not the broker, by whatever backend it has the device."""
        self.start_broker()
        other = subprocess.Popen(["/bin/sleep", "1000"], stdin=subprocess.DEVNULL)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        for runtime, shim in ((CRUN, ()), ("crun", ("/run/postern/shim",))):
            tried = self.podman("run", "--rm", "--network", "none", "--pid", "host", "--privileged", "--device", "postern.dev/slice=disk.1", "lab", *shim,
                                "/bin/container-probe", "--trace", f"{self.broker.pid}:{other.pid}", runtime=runtime)
            self.assertEqual(self.read_probe(tried)[0]["trace"], {str(self.broker.pid): -errno.EPERM, str(other.pid): 0})
        without = self.podman("run", "--rm", "--network", "none", "--pid", "host", "--privileged", "lab", "/bin/container-probe", "--trace",
                              str(self.broker.pid), runtime="crun")
        self.assertEqual(self.read_probe(without)[0]["trace"], {str(self.broker.pid): 0}, "the control")

    def nodes(self):
        """All by which this machine gives out devices and address spaces; of another device, as this one's are taken."""
        self.assertEqual(postern("bind", EDU).returncode, 0)
        self.addCleanup(postern, "unbind", EDU)
        group = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{EDU}/iommu_group"))
        cdevs = [f"devices/{name}" for name in os.listdir("/dev/vfio/devices")] if os.path.isdir("/dev/vfio/devices") else []
        return [f"/dev/vfio/{name}" for name in ["vfio", group, *cdevs]] + ["/dev/iommu"] * os.path.exists("/dev/iommu")

    def test_other_vfio_files(self):
        """That a container opens itself: refused in a container with a slice, of whatever backend that is, and in no other."""
        nodes = self.nodes()
        there = [word for node in nodes for word in ("--device", node)]
        probe = ["/bin/container-probe", "--vfio", ":".join(nodes)]
        for runtime, shim in ((CRUN, ()), ("crun", ("/run/postern/shim",))):
            for flags in ([], ["--privileged"]):
                with_slice = self.podman("run", "--rm", "--network", "none", "--device", "postern.dev/slice=disk.1", *there, *flags, "lab", *shim,
                                         *probe, runtime=runtime)
                self.assertEqual(self.read_probe(with_slice)[0]["vfio"], {node: -errno.EPERM for node in nodes})
                without = self.podman("run", "--rm", "--network", "none", *there, *flags, "lab", *probe, runtime=runtime)
                answers = self.read_probe(without)[0]["vfio"]
                self.assertEqual(set(answers), set(nodes))
                self.assertEqual([answer for answer in answers.values() if answer not in (0, -errno.ENOTTY, -errno.EINVAL)], [], "the control")


if __name__ == "__main__":
    unittest.main(verbosity=2)
