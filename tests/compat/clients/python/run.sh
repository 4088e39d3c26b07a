#!/bin/sh
# What `run` of each Python suite does: its main.py in its environment, with this folder's modules and nothing written
# beside the sources. Takes the folder of the suite, then names of cases (their beginnings) if not all are wanted.
set -eu

suite=$1
shift
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH="$suite/../python"
# What is signed is signed by the authority that a case names; the package requests prefers these variables.
unset REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
# The runner's addresses are those of loopback.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY grpc_proxy
exec "$KVIST_WORK/venv/bin/python" "$suite/main.py" "$@"
