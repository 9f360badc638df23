#!/bin/sh
# Make requirements.txt, the lock with hashes, of requirements.in:  lock.sh [PYTHON]
set -eu

cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${1:-python3}" -m venv "$tools"
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check uv
# The hashes of all files of a version: the lock holds for every Python that OCPS runs on.
"$tools/bin/uv" pip compile --quiet --no-deps --universal --python-version 3.11 --generate-hashes --no-header \
    --no-annotate --no-emit-index-url requirements.in --output-file "$tools/lock"
{
    echo "# Made by bin/lock.sh of requirements.in; installed with: pip install --only-binary=:all: --no-deps -r requirements.txt"
    cat "$tools/lock"
} >requirements.txt
