#!/bin/sh
# What `prepare` of each Python suite does: a virtual environment below $KVIST_WORK with what its requirements.txt says.
# Takes the folder of the suite. Packages that only exist as sources are built with what build.txt says, if there is one.
set -eu

suite=$1
venv=$KVIST_WORK/venv

has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

missing() {
    echo "there is no $1; get it with: apt-get install python3 python3-venv"
    exit 77
}

if ! has_venv; then
    command -v apt-get >/dev/null || missing "python3 with venv"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || missing "python3 with venv (and neither root nor sudo)"
        sudo=sudo
    fi
    # The packages are known already on most machines; an update costs more than asking twice.
    install="$sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-venv"
    $install >&2 || { $sudo apt-get update >&2 && $install >&2; } || missing "python3 with venv"
    has_venv || missing "python3 with venv"
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || missing "python3 of version 3.10 or newer"

# A finished environment of the same Python with the same packages is used again, without the network.
wanted=$(python3 --version && cat "$suite"/*.txt)
if [ "$(cat "$venv/installed" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
rm -rf "$venv"
python3 -m venv "$venv"
pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
if [ -e "$suite/build.txt" ]; then
    pip --requirement "$suite/build.txt"
    pip --no-build-isolation --requirement "$suite/requirements.txt"
else
    pip --requirement "$suite/requirements.txt"
fi
echo "$wanted" >"$venv/installed"
