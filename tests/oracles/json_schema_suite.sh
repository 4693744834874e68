#!/usr/bin/env bash
# Makes build/json-schema-suite, the JSON-Schema-Test-Suite (MIT) out of the source package of Python's jsonschema; quick
# when it is there. Fails where the package cannot be had; the test that reads it then skips.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly package=jsonschema version=4.25.1 folder=build/json-schema-suite
[[ -f $folder/made && $(cat "$folder/made") == "$version" ]] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary "$package" -d "$work" "$package==$version"
rm -rf "$folder"
mkdir -p "$folder"
tar xzf "$work/$package-$version.tar.gz" -C "$folder" --strip-components=3 "$package-$version/json/tests"
printf '%s' "$version" >"$folder/made"
