# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What scripts/demo and scripts/test share: what has to be installed, and the build.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$repository/build

say() { printf '\n== %s\n' "$*"; }

die() {
    printf 'postern: %s\n' "$*" >&2
    exit 1
}

# Debian 12's names. The last three lines are for tests alone.
packages=(
    g++ clang cmake ninja-build pkg-config bpftool llvm
    libbpf-dev libelf-dev zlib1g-dev libseccomp-dev libcap-dev
    nlohmann-json3-dev libcli11-dev libfmt-dev libexpected-dev musl-dev libc++-14-dev
    qemu-system-x86 busybox-static cpio kmod zstd xz-utils
    make flex bison bc dwarves
    libgtest-dev libgmock-dev golang-github-containers-common python3 python3-jsonschema python3-yaml python3-pytest python3-pytest-xdist strace stress-ng trinity
    bubblewrap crun runc podman catatonit python3-seccomp libcap2-bin uidmap
    clang-tidy clang-format libclang-rt-14-dev groff-base
)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
    local missing=() package
    for package in "${packages[@]}"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed$' || missing+=("$package")
    done
    if [ ${#missing[@]} = 0 ]; then
        say "Nothing to install: all ${#packages[@]} packages are there"
        return
    fi
    command -v apt-get >/dev/null || die "apt-get is needed to install: ${missing[*]}"
    say "Installing ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# Many sources at a time, which takes a first build less than half of the time. Whoever works on the code configures without.
# shellcheck disable=SC2034  # used by whoever includes this
together=(-DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=28)

# build_tree FOLDER TARGET [CMAKE OPTION…]
build_tree() {
    local folder=$1 target=$2
    shift 2
    say "Building in ${folder#"$repository"/} (a first build takes minutes)"
    [ -f "$folder/build.ninja" ] || cmake -S "$repository" -B "$folder" -G Ninja "$@"
    cmake --build "$folder" --target "$target"
}
