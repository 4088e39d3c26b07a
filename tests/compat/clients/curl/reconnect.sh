# shellcheck shell=sh disable=SC2317
# A watch across restarts of the server, as a script does it: when the stream ends, the next begins behind the last event.
. ./lib.sh

KEYS=45

# Creates each key exactly once, whatever happens to the server.
write() {
    OUT=$DIR/written
    n=0
    while [ "$n" -lt "$KEYS" ]; do
        key=$(b64 "$(printf 'k%03d' "$n")")
        txn="{\"compare\": [{\"key\": \"$key\", \"target\": \"VERSION\", \"version\": 0}],
            \"success\": [{\"request_put\": {\"key\": \"$key\"}}]}"
        written() { [ "$(curl -s --max-time 5 -o "$OUT" -w '%{http_code}' -d "$txn" "$URL/v3/kv/txn")" = 200 ]; }
        until_so "a write" written
        n=$((n + 1))
        echo "$n" >"$DIR/progress"
    done
}

# Follows all keys, in as many streams as it takes; each stream's lines go to a file of its own.
follow() {
    from=1
    number=0
    while :; do
        number=$((number + 1))
        curl -sN --max-time 60 -d "{\"create_request\": {\"key\": \"AA==\", \"range_end\": \"AA==\", \"start_revision\": $from}}" \
            "$URL/v3/watch" >"$DIR/follow.$number" || :
        # A line that was cut off is no JSON; the event in it comes again.
        last=$(grep -a '}$' "$DIR/follow.$number" | jq -r '.result.events[-1].kv.mod_revision // empty' 2>/dev/null | tail -n 1)
        [ -z "$last" ] || from=$((last + 1))
        sleep 0.05
    done
}

keys_seen() {
    for file in "$DIR"/follow.*; do
        grep -a '}$' "$file" | jq -r '.result.events[]?.kv.key | @base64d' 2>/dev/null
    done
}
all_seen() { [ "$(keys_seen | wc -l)" -ge "$KEYS" ]; }
passed() { [ "$(cat "$DIR/progress")" -ge "$1" ]; }

restarts() {
    rm -f "$DIR"/follow.*
    echo 0 >"$DIR/progress"
    follow &
    echo $! >>"$DIR/jobs"
    write &
    writer=$!
    for at in 15 30; do
        until_so "key $at" passed "$at"
        act "$1"
        act start
    done
    wait "$writer" || fail "the writer: $(cat "$DIR/reason")"
    until_so "all events, of which there are $(keys_seen | wc -l)" all_seen
    is events "$(seq -f 'k%03g' 0 $((KEYS - 1)) | paste -s -d ' ')" "$(keys_seen | paste -s -d ' ')"
}
crash() { restarts kill; }
orderly() { restarts stop; }
check "watch across a crash without loss or repeat" crash
check "watch across an orderly restart" orderly
