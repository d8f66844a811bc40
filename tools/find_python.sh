#!/bin/sh
# Print the path of a Python that nbpar can be developed with: 3.11 or newer, able to make virtual environments.
# With an argument only that one is looked at.
set -u

usable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ $# -gt 0 ] && [ -n "$1" ]; then
    names=$1
    asked="PYTHON=$1 is not there, or is older than 3.11."
else
    names="python3 python3.13 python3.12 python3.11 python3.14 python"
    asked=""
fi
candidates=$names
# pyenv keeps pythons that its shims do not offer.
for name in $names; do
    series=${name#python}
    for path in "$HOME/.pyenv/versions/$series".*/bin/python; do
        [ -x "$path" ] && candidates="$candidates $path"
    done
done

no_venv=""
for candidate in $candidates; do
    usable "$candidate" || continue
    if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        "$candidate" -c 'import sys; print(sys.executable)'
        exit 0
    fi
    no_venv=$candidate
done

{
    if [ -n "$no_venv" ]; then
        echo "$no_venv cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"
    else
        echo "${asked:-No Python 3.11 or newer was found.} Name one: make PYTHON=/path/to/python3.12 ..."
    fi
} >&2
exit 1
