#!/bin/sh
# Make a virtual environment with all that OCPS needs:  make_venv.sh PYTHON FOLDER
set -eu

python=$1
venv=$2

if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing $package, which Debian keeps apart from Python"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$package" >/dev/null
    else
        echo "make: $python cannot make virtual environments; install it with: sudo apt-get install $package" >&2
        exit 1
    fi
fi

echo "Making $venv (a minute or two, about 800 MB)"
"$python" -m venv "$venv"
pip="$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps"
# Wheels only, and each must have a hash of the lock: nothing is built from what somebody else may have replaced.
$pip --only-binary=:all: --require-hashes -r requirements.txt
# Ours, built with the setuptools that the lock has.
$pip --no-build-isolation -r requirements-local.txt
"$venv/bin/python" -m pip check
# Once: without compiled files every pipetask would compile all of them again.
env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -m compileall -q "$venv/lib" >/dev/null || true
