#!/bin/sh
# Builds hello.wasm, or what it is told. It needs, once: rustup target add wasm32-unknown-unknown
set -eu
here=$(cd "$(dirname "$0")" && pwd)
(cd "$here" && cargo build --release --locked)
cp "${CARGO_TARGET_DIR:-$here/target}/wasm32-unknown-unknown/release/hello.wasm" "${1:-hello.wasm}"
