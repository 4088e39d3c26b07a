# shellcheck shell=sh disable=SC2317
# Calls that end before their answer: by curl's own limit, by a limit in the header, by going away.
. ./lib.sh

deadline() {
    put a 1
    act pause
    code=0
    curl -s -m 1 -o "$OUT" -d '{"key": "YQ=="}' "$URL/v3/kv/range" || code=$?
    act resume
    is "curl's own limit" 28 "$code"
    put a 2
    get a
    is "afterwards" "a=2 2" "$(pairs) $(q '.kvs[0].version')"
}
check "deadline on a server that does not answer" deadline

lock_deadline() {
    call lock/lock '{"name": "bA=="}'
    call lease/grant '{"TTL": 600, "ID": 7}'
    refused 504 4 "context deadline exceeded" lock/lock '{"name": "bA==", "lease": 7}' -H "Grpc-Timeout: 300m"
    until_so "the queue without it" count_is l/ l0 1
    code=0
    curl -s -m 1 -o "$OUT" -d '{"name": "bA==", "lease": 7}' "$URL/v3/lock/lock" || code=$?
    is "curl's own limit" 28 "$code"
    until_so "the queue without it" count_is l/ l0 1
}
check "deadline of a lock that is taken" lock_deadline

dropped_watch() {
    stream w watch '{"create_request": {"key": "YQ=="}} {"create_request": {"key": "Yg=="}}'
    line w 2
    is watchers 2 "$(metric etcd_debugging_mvcc_watcher_total)"
    kill "$JOB"
    until_so "the server to forget them" metric_is etcd_debugging_mvcc_watcher_total 0
    put a 1
}
check "a dropped watch is forgotten" dropped_watch

no_server() {
    act kill
    code=0
    curl -s -m 5 -o "$OUT" -d '{"key": "YQ=="}' "$URL/v3/kv/range" || code=$?
    is "connection refused" 7 "$code"
}
check "no server there" no_server
