#!/usr/bin/env bash
# Make the virtual environment if it is not there, and install exca with the named extras into it, every
# package at the version in requirements-dev.lock, or as other CONSTRAINTS have it.
# Usage: scripts/venv.sh FOLDER EXTRA[,EXTRA...] [CONSTRAINTS]; PYTHON says which interpreter to build on (python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$1 extras=$2 constraints=${3:-requirements-dev.lock} python=${PYTHON:-python3}

fail() { printf 'venv: %s\n' "$*" >&2; exit 1; }

if [ ! -x "$folder/bin/pip" ]; then
  command -v "$python" > /dev/null || fail "$python is not installed (Debian: apt install python3 python3-venv), or name another: make PYTHON=..."
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
    || fail "$("$python" --version) is not one of 3.11 to 3.13; name another: make PYTHON=python3.12 ..."
  "$python" -c 'import ensurepip' 2> /dev/null \
    || fail "$python cannot make virtual environments (Debian: apt install python3-venv)"
  "$python" -m venv "$folder"
fi
pip=("$folder/bin/python" -m pip --disable-pip-version-check install --quiet --constraint "$constraints")
printf 'venv: installing exca[%s] into %s\n' "$extras" "$folder"
# The build backend comes pinned from the lock as well, hence no isolated build.
"${pip[@]}" hatchling editables
"${pip[@]}" --no-build-isolation --editable ".[$extras]"
