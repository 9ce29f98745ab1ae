# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Completion of postern's command line, as `postern completion bash` prints it.

# Prints what a value may be, one word a line: $1 its name in the help, $2 its beginning. The name says what it is:
# BDF, DIR, NAME|FILE, host-ro|empty|DIR; words in lower case stand for themselves.
_postern_words() {
    local kind folder program
    if [ "$1" = 'NAME|FILE' ] || [ "$1" = PROFILE ]; then
        program=$(realpath "$(type -P postern)" 2>/dev/null)
        for folder in ${POSTERN_PROFILE_PATH//:/ } /etc/postern/profiles "${program%/*/*}/share/postern/profiles"; do
            (cd "$folder" 2>/dev/null && compgen -f -X '!*.json' -- "$2" | sed 's/\.json$//')
        done
        compgen -f -- "$2"
        return
    fi
    for kind in ${1//|/ }; do
        case $kind in
            BDF) (cd /sys/bus/pci/devices 2>/dev/null && compgen -f -- "$2") ;;
            DIR) compgen -d -- "$2" ;;
            FILE | SRC | DEST) compgen -f -- "$2" ;;
            *[[:upper:]]*) ;;
            *) compgen -W "$kind" -- "$2" ;;
        esac
    done
}

_postern() {
    local -A options commands values launches
    # TABLES

    # Bash's own words are torn at the colons of a PCI address.
    local -a words expected
    local line=${COMP_LINE:0:COMP_POINT} current='' word path=postern taken=0
    read -ra words <<< "$line"
    case $line in *[!\ ]) current=${words[-1]} && unset 'words[-1]' ;; esac
    for word in "${words[@]:1}"; do
        if [ ${#expected[@]} -gt 0 ]; then
            expected=("${expected[@]:1}")
        elif [ "$word" = -- ]; then
            path=client
        elif [ "$path" = client ]; then
            taken=1
        elif [[ $word == -*=* ]]; then
            :
        elif [[ $word == -* ]]; then
            read -ra expected <<< "${values[$path $word]-}"
        elif [[ " ${commands[$path]-} " == *" $word "* ]]; then
            path+=" $word"
        elif [ -n "${launches[$path]-}" ]; then
            path=client taken=1
        else
            taken=$((taken + 1))
        fi
    done

    local kind=''
    if [ "$path" = client ]; then
        kind=FILE
        mapfile -t COMPREPLY < <([ $taken = 1 ] || compgen -c -- "$current"; compgen -f -- "$current")
    elif [ ${#expected[@]} -gt 0 ]; then
        kind=${expected[0]}
        mapfile -t COMPREPLY < <(_postern_words "$kind" "$current")
    elif [[ $current == -*=* ]]; then
        read -ra expected <<< "${values[$path ${current%%=*}]-}"
        kind=${expected[0]-} current=${current#*=}
        mapfile -t COMPREPLY < <(_postern_words "$kind" "$current")
    elif [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${options[$path]-}" -- "$current")
    else
        read -ra expected <<< "${values[$path]-}"
        kind=${expected[taken]-}
        mapfile -t COMPREPLY < <(
            compgen -W "${commands[$path]-}" -- "$current"
            [ -z "${launches[$path]-}" ] || compgen -c -- "$current"
            [ -z "$kind" ] || _postern_words "$kind" "$current"
        )
    fi
    # A slash behind folders; but the colons of an address are not to be escaped, and a command may be named as a folder.
    case $kind in '' | BDF) ;; *) compopt -o filenames 2>/dev/null ;; esac
    # What bash believes to be complete already, up to its last colon, must not stand in the answers.
    if [[ $COMP_WORDBREAKS == *:* && $current == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    fi
}
complete -F _postern postern
