#!/bin/sh
# Builds hello.wasm, or what it is told. It needs, once: npm install componentize-qjs
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# On the PATH, or where npm left it.
$(command -v componentize-qjs || echo npx componentize-qjs) --sync --stub-wasi --wit "$here/../wit" --js "$here/hello.js" -o "${1:-hello.wasm}"
