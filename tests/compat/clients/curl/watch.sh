# shellcheck shell=sh disable=SC2317
# Watches: a stream of lines.
. ./lib.sh

from_now() {
    put a 0
    stream w watch '{"create_request": {"key": "YQ==", "prev_kv": true}}'
    line w 1
    is created "true null 2" "$(q '.result | "\(.created) \(.watch_id) \(.header.revision)"')"
    put a 1
    put b 2
    call kv/deleterange '{"key": "YQ=="}'
    saw w "put a=1 @3, delete a @5"
    line w 3
    is "the pair before" "MQ==" "$(q '.result.events[0].prev_kv.value')"
}
check "from now on, with previous pairs" from_now

replay() {
    for pair in a=1 b=2 a=3; do put "${pair%=*}" "${pair#*=}"; done
    stream w watch '{"create_request": {"key": "AA==", "range_end": "AA==", "start_revision": "3"}}'
    saw w "put b=2 @3, put a=3 @4"
    put c 4
    saw w "put b=2 @3, put a=3 @4, put c=4 @5"
    stream p watch "{\"create_request\": {\"key\": \"$(b64 a)\", \"range_end\": \"$(b64 b)\", \"start_revision\": 1}}"
    saw p "put a=1 @2, put a=3 @4"
}
check "replay from a revision, then go on" replay

filters() {
    put a 1
    call kv/deleterange '{"key": "YQ=="}'
    put a 2
    call kv/deleterange '{"key": "YQ=="}'
    stream d watch '{"create_request": {"key": "YQ==", "start_revision": 1, "filters": ["NOPUT"]}}'
    saw d "delete a @3, delete a @5"
    stream p watch '{"create_request": {"key": "YQ==", "start_revision": 1, "filters": ["NODELETE"]}}'
    saw p "put a=1 @2, put a=2 @4"
}
check "filters" filters

many() {
    stream w watch '{"create_request": {"key": "YQ=="}} {"create_request": {"key": "Yg==", "watch_id": 7}}
        {"create_request": {"key": "Yw=="}} {"create_request": {"key": "YQ==", "watch_id": 7}}
        {"cancel_request": {"watch_id": 7}}'
    line w 5
    head -n 5 "$DIR/w" | jq -r '.result | "\(.watch_id) \(.created) \(.canceled) \(.cancel_reason)"' >"$DIR/heads"
    is heads "null true null null;7 true null null;1 true null null;-1 true true mvcc: duplicate watch ID provided on the WatchStream;7 null true null" \
        "$(paste -s -d ';' "$DIR/heads")"
    put a 1
    put b 2
    put c 3
    saw w "put a=1 @2, put c=3 @4"
}
check "many watchers on one stream, and cancel" many

progress() {
    put b 1
    put b 2
    stream w watch '{"create_request": {"key": "YQ=="}} {"progress_request": {}}'
    line w 2
    is progress "-1 3 null" "$(q '.result | "\(.watch_id) \(.header.revision) \(.events)"')"
}
check "progress by request" progress

progress_notify() {
    put b 1
    stream w watch '{"create_request": {"key": "YQ==", "progress_notify": true}}'
    line w 1
    put b 2
    newest() { [ "$(tail -n 1 "$DIR/w" | jq -r .result.header.revision)" = 3 ]; }
    until_so "progress" newest
    is events "" "$(events w)"
}
check "progress by itself" progress_notify '{"flags": ["--watch-progress-notify-interval=200ms"]}'

compacted() {
    for value in 1 2 3 4; do put a "$value"; done
    call kv/compaction '{"revision": 4}'
    stream w watch '{"create_request": {"key": "YQ==", "start_revision": 2}}'
    line w 2
    is canceled "true 4" "$(q '.result | "\(.canceled) \(.compact_revision)"')"
    stream n watch '{"create_request": {"key": "YQ==", "start_revision": 4}}'
    saw n "put a=3 @4, put a=4 @5"
}
check "start at a compacted revision" compacted

together() {
    put b 0
    stream w watch '{"create_request": {"key": "AA==", "range_end": "AA=="}}'
    line w 1
    call kv/txn '{"success": [{"request_put": {"key": "YQ==", "value": "MQ=="}}, {"request_delete_range": {"key": "Yg=="}}]}'
    line w 2
    is "one line" "put a=1 @3, delete b @3" "$(q "$EVENTS")"
}
check "events of a transaction come together" together
