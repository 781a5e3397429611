#!/bin/sh
# Builds hello.wasm, or what it is told. It needs clang 19 or later, and Rust for the linker that comes with it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$(rustc --print sysroot)/lib/rustlib/$(rustc --print host-tuple)/bin
PATH=$bin:$bin/gcc-ld:$PATH
"${CC:-clang-19}" --target=wasm32 -mbulk-memory -O2 -Wall -nostdlib -fuse-ld="$bin/wasm-component-ld" \
    -Wl,--component-type,"$here/../wit/greetd.wit" -Wl,--no-entry -Wl,--strip-all -o "${1:-hello.wasm}" \
    "$here/hello.c" "$here/greetd.c"
