# Process protocol 1 of greetd (../PROTOCOL.md) for bash: define `opened` and `message`, then call `serve NAME`.
# Both are told of the session by $session and of its opening by ${about[$session]}; they answer with `reply TEXT`,
# `silent` or `finish [TEXT]`, once. `push TEXT` sends unprompted. For text: a shell cannot hold NUL bytes.
LC_ALL=C
declare -A about

frame() { # TYPE PAYLOAD
  local header bytes=$((${#2})) number=$session
  printf -v header '\\x%02x' $((bytes & 255)) $((bytes >> 8 & 255)) $((bytes >> 16 & 255)) $((bytes >> 24)) "$1" \
    $((number & 255)) $((number >> 8 & 255)) $((number >> 16 & 255)) $((number >> 24))
  printf "$header%s" "$2"
}
reply() { frame 3 "$1"; }
push() { frame 4 "$1"; }
finish() { unset "about[$session]"; frame 5 "$1"; }
silent() { frame 7 ''; }
connected() { [[ ${about[$session]} == *'"connected":true'* ]]; }

serve() {
  local header payload length
  printf 'greetd-plugin 1 %s\n' "$1"
  while header=($(od -An -v -tu1 -N9)) && ((${#header[@]} == 9)); do
    length=$((header[0] | header[1] << 8 | header[2] << 16 | header[3] << 24))
    session=$((header[5] | header[6] << 8 | header[7] << 16 | header[8] << 24))
    # The x keeps a line feed at the end; the warning about NUL bytes is nobody's concern.
    payload=$({ head -c "$length"; printf x; } 2>/dev/null) 2>/dev/null
    payload=${payload%x}
    case ${header[4]} in
      1) about[$session]=$payload && opened ;;
      2) [[ -v about[$session] ]] && message "$payload" ;;
      5) unset "about[$session]" ;;
    esac
  done
}
