# shellcheck shell=sh
# What the cases use. Sourced by each file of cases; $1 is the file's name, which is the feature.
set -u
FEATURE=$1
COUNT=0
DIR=$WORK/$FEATURE
OUT=$DIR/answer
PATIENCE=30
mkdir -p "$DIR"

# Ends a case. Only this does: in a condition, as cases run, a shell takes no notice of `set -e`.
fail() {
    echo "$*" | tr '\n' ' ' | cut -c 1-600 >"$DIR/reason"
    exit 1
}

# is WHAT EXPECTED ACTUAL
is() { [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"; }

# Runs a function as a case: check "name" function ['{"flags": [...]}']
check() {
    case $FEATURE/$1 in *"$ONLY"*) ;; *) return ;; esac
    COUNT=$((COUNT + 1))
    echo "$COUNT" >"$WORK/$FEATURE.count"
    : >"$DIR/reason"
    : >"$DIR/jobs"
    : >"$DIR/servers"
    if (
        server "${3:-}"
        "$2"
    ) >"$DIR/output" 2>&1; then
        echo "ok - $FEATURE/$1"
    else
        reason=$(cat "$DIR/reason")
        echo "not ok - $FEATURE/$1: ${reason:-$(tail -n 1 "$DIR/output" | cut -c 1-300)}"
        touch "$WORK/failed"
    fi
    while read -r job; do kill "$job" 2>/dev/null; done <"$DIR/jobs"
    while read -r number; do curl -s -X DELETE "$KVIST_CONTROL/servers/$number" >/dev/null; done <"$DIR/servers"
}

# Starts a server; sets URL, ID, CA, CERT, KEY.
server() {
    made=$(curl -sf --max-time 60 -d "${1:-}" "$KVIST_CONTROL/servers") || fail "no server: $made"
    URL=$(echo "$made" | jq -r .endpoint)
    ID=$(echo "$made" | jq -r .id)
    CA=$(echo "$made" | jq -r '.ca // ""')
    CERT=$(echo "$made" | jq -r '.cert // ""')
    KEY=$(echo "$made" | jq -r '.key // ""')
    echo "$ID" >>"$DIR/servers"
}

# act VERB: kill, stop, start, pause or resume the server
act() { curl -sf --max-time 60 -X POST "$KVIST_CONTROL/servers/$ID/$1" >/dev/null || fail "control: $1"; }

b64() { printf %s "$1" | base64 -w 0; }

# post PATH BODY [curl's options]: one call; the answer goes to $OUT, the status to $STATUS
post() {
    path=$1
    body=$2
    shift 2
    STATUS=$(curl -s --max-time "$PATIENCE" -o "$OUT" -w '%{http_code}' "$@" -d "$body" "$URL/v3/$path") ||
        fail "$path: curl ended with $?"
}

# call PATH BODY [curl's options]: one that is answered well
call() {
    post "$@"
    [ "$STATUS" = 200 ] || fail "$1 $2: $STATUS $(cat "$OUT")"
}

# refused STATUS CODE TEXT PATH BODY [curl's options]: one that is answered with an error
refused() {
    want="$1 $2 $3"
    shift 3
    post "$@"
    is "$1 $2" "$want" "$STATUS $(jq -r '"\(.code) \(.message)"' "$OUT")"
}

# q FILTER: from the last answer
q() { jq -r "$1" "$OUT"; }

# The pairs of the last answer on one line: "a=1 b=2"
pairs() { q '[.kvs[]? | (.key | @base64d) + "=" + (.value // "" | @base64d)] | join(" ")'; }

# put KEY VALUE
put() { call kv/put "{\"key\": \"$(b64 "$1")\", \"value\": \"$(b64 "$2")\"}"; }

# get KEY [further members of the request, with a comma before]
get() { call kv/range "{\"key\": \"$(b64 "$1")\"${2:-}}"; }

# All keys, with further members of the request
ALL='{"key": "AA==", "range_end": "AA=="'
all() { call kv/range "$ALL${1:-}}"; }

# grant TTL: the id of a new lease
grant() {
    call lease/grant "{\"TTL\": $1}"
    LEASE=$(q .ID)
}

# stream NAME PATH BODY [curl's options]: a call with many answers, a line each, in the background
stream() {
    file=$DIR/$1
    path=$2
    body=$3
    shift 3
    : >"$file"
    curl -sN --max-time 120 "$@" -d "$body" "$URL/v3/$path" >"$file" 2>/dev/null &
    JOB=$!
    echo "$JOB" >>"$DIR/jobs"
}

# until WHAT COMMAND...: again and again, until it is so
until_so() {
    what=$1
    shift
    deadline=$(($(date +%s) + PATIENCE))
    until "$@"; do
        [ "$(date +%s)" -lt "$deadline" ] || fail "gave up waiting for $what"
        sleep 0.05
    done
}

has_lines() { [ "$(wc -l <"$DIR/$1")" -ge "$2" ]; }

# line NAME NUMBER: an answer of a stream, made the last answer
line() {
    until_so "line $2 of $1: $(tail -n 1 "$DIR/$1")" has_lines "$1" "$2"
    sed -n "$2p" "$DIR/$1" >"$OUT"
}

# The events of a line of a watch: "put a=1 @2, delete a @3"
EVENTS='[.result.events[]? | if .type == "DELETE" then "delete " + (.kv.key | @base64d) else
    "put " + (.kv.key | @base64d) + "=" + (.kv.value // "" | @base64d) end + " @" + .kv.mod_revision] | join(", ")'

# The events of all lines so far.
events() { jq -r "$EVENTS | select(. != \"\")" "$DIR/$1" 2>/dev/null | paste -s -d ';' - | sed 's/;/, /g'; }

has_events() {
    SEEN=$(events "$1")
    [ "$(echo "$SEEN" | awk -F ', ' '{ print NF }')" -ge "$2" ]
}

# saw NAME EXPECTED: the events of a stream, once there are as many
saw() {
    wanted=$(echo "$2" | awk -F ', ' '{ print NF }')
    until_so "$2 in $1, so far: $(events "$1")" has_events "$1" "$wanted"
    is "events of $1" "$2" "$SEEN"
}

has_ended() { ! kill -0 "$1" 2>/dev/null; }

# A value of the page of metrics.
metric() { curl -s --max-time "$PATIENCE" "$URL/metrics" | awk -v name="$1" '$1 == name { print $2 }'; }
metric_is() { [ "$(metric "$1")" = "$2" ]; }

# How many keys begin so.
count_is() {
    call kv/range "{\"key\": \"$(b64 "$1")\", \"range_end\": \"$(b64 "$2")\", \"count_only\": true}"
    [ "$(q '.count // "0"')" = "$3" ]
}
