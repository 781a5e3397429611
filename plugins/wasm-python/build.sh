#!/bin/sh
# Builds hello.wasm, or what it is told. It needs, once: pip install componentize-py
set -eu
here=$(cd "$(dirname "$0")" && pwd)
componentize-py -d "$here/../wit" -w plugin componentize --stub-wasi -p "$here" handler -o "${1:-hello.wasm}"
