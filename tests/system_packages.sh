#!/bin/sh
# `--missing` lists those that are not here, and installs nothing.
# The programs that the tests talk to: a sandbox, a judge of services, a browser, a second DICOM converter, a DICOM toolkit, a judge of DICOM objects, a PACS, a database, a reader of PDF, a server of metrics, raw data of MR scanners.
set -eu
missing=""
command -v bwrap >/dev/null 2>&1 || missing="$missing bubblewrap"
command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v dcm2niix >/dev/null 2>&1 || missing="$missing dcm2niix"
command -v dciodvfy >/dev/null 2>&1 || missing="$missing dicom3tools"
command -v dcmdump >/dev/null 2>&1 || missing="$missing dcmtk"
command -v Orthanc >/dev/null 2>&1 || missing="$missing orthanc"
test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so || missing="$missing orthanc-dicomweb"
command -v pdftotext >/dev/null 2>&1 || missing="$missing poppler-utils"
command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
command -v ismrmrd_generate_cartesian_shepp_logan >/dev/null 2>&1 || missing="$missing ismrmrd-tools"
test -d /usr/lib/postgresql || missing="$missing postgresql"
if [ "${1:-}" = --missing ]; then
    echo "$missing"
    exit 0
fi
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # The packages of Orthanc, PostgreSQL and Prometheus start their servers: the tests start theirs, each on a port of its own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    fi
    if apt-get update -qq >/dev/null 2>&1 && apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1; then
        exit 0
    fi
    echo "could not install$missing: the tests that need them are skipped" >&2
    exit 0
fi
echo "not installed:$missing. The tests that need them are skipped; install them with the system's package manager" >&2
