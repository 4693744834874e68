#!/usr/bin/env bash
# Makes build/oracles, a Python environment with what tests are compared with; quick when it is there. Fails where no
# package can be had; the tests that need it then skip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly packages="xllamacpp"
readonly environment=build/oracles
if [[ ! -f $environment/made || $(cat "$environment/made") != "$packages" ]]; then
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check $packages
  printf '%s' "$packages" >"$environment/made"
fi
