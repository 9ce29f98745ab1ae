# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Where the lab's kernels are: one place for all checkouts of a machine, as each takes minutes to fetch or to build. Sourced.
# shellcheck disable=SC2034
cache=${LAB_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/postern-lab}
