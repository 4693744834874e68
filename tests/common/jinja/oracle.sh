#!/bin/bash
# oracle.sh DIR SEED N: what Python's jinja2 writes for published and generated templates, as DIR/templates.jsonl and
# DIR/random.jsonl. Makes a virtual environment in DIR and fetches the templates there (models/templates of llama.cpp, in
# the source package of llama-cpp-python); what is there is kept. Fails, with the reason last, where something cannot be had.
# Templates that are in no such collection come from other packages (published.py), as DIR/published; where these cannot be
# had the rest goes on without, and DIR/published.why says why.
set -euo pipefail
cd "$(dirname "$0")"
dir=$1 seed=$2 n=$3
jinja2=3.1.6 llama_cpp_python=0.3.36
reference=${UPDRAFT_REFERENCE_DATA:-$PWD/../../../../shared/data}/tokenizer_conformance/chat_templates

mkdir -p "$dir"
if [[ ! -d $dir/venv/ready/$jinja2 ]]; then
  rm -rf "$dir/venv"
  python3 -m venv "$dir/venv" || { echo "no Python with venv"; exit 1; }
  "$dir/venv/bin/pip" install -q "jinja2==$jinja2" scikit-build-core || { echo "jinja2 $jinja2 cannot be fetched"; exit 1; }
  mkdir -p "$dir/venv/ready/$jinja2"
fi
if [[ ! -d $dir/templates-$llama_cpp_python ]]; then
  "$dir/venv/bin/pip" download -q --no-deps --no-build-isolation --no-binary llama-cpp-python -d "$dir/sdist" \
    "llama-cpp-python==$llama_cpp_python" || { echo "llama-cpp-python $llama_cpp_python cannot be fetched"; exit 1; }
  mkdir -p "$dir/unpacked"
  tar xzf "$dir"/sdist/*.tar.gz -C "$dir/unpacked" --strip-components=5 --wildcards '*/vendor/llama.cpp/models/templates/*'
  mv "$dir/unpacked" "$dir/templates-$llama_cpp_python"
  rm -rf "$dir/sdist"
fi
if [[ ! -d $dir/published ]]; then
  if "$dir/venv/bin/python" published.py "$dir/published.new" >"$dir/published.why" 2>&1; then
    mv "$dir/published.new" "$dir/published"
  else
    rm -rf "$dir/published.new"
  fi
fi
folders=("$dir/templates-$llama_cpp_python")
[[ ! -d $dir/published ]] || folders+=("$dir/published")
[[ ! -d $reference ]] || folders+=("$reference")
# Made again when what makes them has changed.
stamp=$(sha256sum oracle.py | cut -c1-16)-$seed-$n-${#folders[@]}
if [[ ! -f $dir/stamp || $(<"$dir/stamp") != "$stamp" ]]; then
  "$dir/venv/bin/python" -W ignore oracle.py templates "$dir/templates.jsonl" "${folders[@]}"
  "$dir/venv/bin/python" -W ignore oracle.py random "$dir/random.jsonl" "$seed" "$n"
  echo "$stamp" >"$dir/stamp"
fi
