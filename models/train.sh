#!/bin/sh
# Makes the embedded story model: train.sh OUT_DIR [--minutes 7.5 | --steps N] [--smoke]
set -eu
exec "${PYTHON:-python3}" -u "$(dirname "$0")/train.py" "$@"
