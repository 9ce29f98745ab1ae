# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Debian's packages of other suites, fetched beside the system and never installed. Sourced; who does needs die(), and sets
# `work` to a folder of its own before open_suite().

# The machine's own mirror. apt parses its sources itself, so one-line and deb822 files, options and disabled
# entries are all understood, and a proxy in apt.conf keeps working.
own_mirror() {
    local codename uri
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    # Once apt-get update has run, apt knows which source calls itself Debian: others may have suites of the same name.
    # shellcheck disable=SC2016  # the $(…) are apt's own placeholders
    uri=$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk '$1 == "Debian" && $2 == "main" && $3 !~ /security|updates|backports/ { print $4; exit }')
    # Before that, the best guess from what it would fetch: ".../debian" and this machine's suite.
    [ -n "$uri" ] || uri=$(apt-get update --print-uris 2>/dev/null | tr -d "'" |
        awk -v c="$codename" '{
            if (!match($1, /\/dists\/[^\/]+\/InRelease$/)) next
            suite = substr($1, RSTART + 7, RLENGTH - 17)
            base = substr($1, 1, RSTART - 1)
            if (suite ~ /security|updates|backports/) next
            n = 1 + 4 * (base ~ /^[^\/]*\/\/[^\/]+\/debian$/) + 2 * (base ~ /\/debian$/) + (suite == c)
            if (n > best) { best = n; uri = base }
        }
        END { print uri }')
    [ -n "$uri" ] || die "apt's sources name no Debian mirror; set LAB_MIRROR to the URI of one"
    printf '%s' "$uri"
}

keyring() {
    # The full keyring first: it has the keys of every suite, older and newer than this machine's.
    local k
    for k in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
        if [ -r "$k" ]; then
            printf '%s' "$k"
            return
        fi
    done
    die "no Debian keyring in /usr/share/keyrings; apt-get install debian-archive-keyring"
}

# apt with state, lists, cache, sources and pins of its own: neither reads nor writes the system's.
private_apt() {
    local tool=$1
    shift
    "$tool" \
        -o "Dir::State=$work/state" -o "Dir::State::Lists=$work/lists" -o "Dir::State::status=$work/status" \
        -o "Dir::Cache=$work/cache" -o "Dir::Etc::sourcelist=$work/sources.list" -o "Dir::Etc::sourceparts=-" \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=- \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root \
        -o Acquire::Retries=3 -o APT::Update::Error-Mode=any -o Acquire::Languages=none -o APT::Get::List-Cleanup=false "$@"
}

# open_suite SUITE [deb|deb-src]: from here on private_apt knows this suite alone.
open_suite() {
    local suite=$1 kind=${2:-deb} keys mirror
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/state"
    : >"$work/status"
    keys=$(keyring) # assigned on their own: a failure inside another command's arguments would go unseen
    mirror=${LAB_MIRROR:-$(own_mirror)}
    printf '%s [arch=amd64 signed-by=%s] %s %s main\n' "$kind" "$keys" "$mirror" "$suite" >"$work/sources.list"
    logged private_apt apt-get -q update || die "the mirror cannot serve $suite (see above); set LAB_MIRROR to one that does"
}

logged() { # command whose output matters only if it fails
    if ! "$@" >"$work/log" 2>&1; then
        sed 's/^/lab:   /' "$work/log" >&2
        return 1
    fi
}
