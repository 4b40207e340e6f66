#!/bin/sh
# The programs that the tests talk to: a browser, a second DICOM converter, a DICOM toolkit.
set -eu
missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v dcm2niix >/dev/null 2>&1 || missing="$missing dcm2niix"
command -v dcmdump >/dev/null 2>&1 || missing="$missing dcmtk"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    if apt-get update -qq >/dev/null 2>&1 && apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1; then
        exit 0
    fi
    echo "could not install$missing: the tests that need them are skipped" >&2
    exit 0
fi
echo "not installed:$missing. The tests that need them are skipped; install them with the system's package manager" >&2
