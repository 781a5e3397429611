#!/usr/bin/env bash
# The tutorial's greeting.
source "${BASH_SOURCE%/*}/greetd.sh"

opened() { if connected; then reply welcome; else silent; fi; }

message() {
  if ! connected; then
    reply "Hello,$1"
  elif [[ $1 == exit ]]; then
    finish
  else
    reply "Hello $1"
  fi
}

serve sh-hello
