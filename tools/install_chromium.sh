#!/bin/sh
# Install Debian's chromium for the browser tests, where it is missing and this user may. Never fails: the tests
# themselves say what is missing (and fail for it where CI is set).
set -u

[ -n "${NBPAR_CHROMIUM:-}" ] && exit 0
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done

if ! command -v apt-get >/dev/null 2>&1; then
    echo "No Chromium here, and no apt-get to install it with: the browser tests need one (NBPAR_CHROMIUM=path)." >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "No Chromium here, and no right to install it: apt-get install chromium (or NBPAR_CHROMIUM=path)." >&2
    exit 0
fi

echo "Installing Debian's chromium for the browser tests ..."
log=$(mktemp)
if ! { $as_root apt-get update -qq &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core
} >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "Chromium could not be installed; the browser tests need it." >&2
fi
rm -f "$log"
