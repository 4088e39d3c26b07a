# shellcheck shell=sh disable=SC2317
# Locks. The name is l; keys are l/ and the lease in hexadecimal digits.
. ./lib.sh

lock() { stream "$1" lock/lock "{\"name\": \"bA==\", \"lease\": $2}"; }

keys() {
    call lease/grant '{"TTL": 600, "ID": 26}'
    call lock/lock '{"name": "bA==", "lease": 26}'
    is key "l/1a" "$(q '.key | @base64d')"
    call lock/lock '{"name": "bA==", "lease": 26}'
    is "the same session" "l/1a" "$(q '.key | @base64d')"
    get l/1a
    is "its lease" 26 "$(q '.kvs[0].lease')"
    call lock/unlock "{\"key\": \"$(b64 l/1a)\"}"
    count_is l/ l0 0 || fail "the key is still there"
}
check "keys, and the same session again" keys

order() {
    for id in 1 2 3; do call lease/grant "{\"TTL\": 600, \"ID\": $id}"; done
    call lock/lock '{"name": "bA==", "lease": 1}'
    lock second 2
    until_so "the second in the queue" count_is l/ l0 2
    lock third 3
    until_so "the third in the queue" count_is l/ l0 3
    is "nobody else has it" "" "$(cat "$DIR/second" "$DIR/third")"
    call lock/unlock "{\"key\": \"$(b64 l/1)\"}"
    until_so "the second" grep -q key "$DIR/second"
    is "the third waits" "" "$(cat "$DIR/third")"
    call lease/revoke '{"ID": 2}'
    until_so "the third" grep -q key "$DIR/third"
    is "its key" "l/3" "$(jq -r '.key | @base64d' "$DIR/third")"
}
check "in the order of asking; unlocked, or the lease revoked" order

expired() {
    call lease/grant '{"TTL": 2, "ID": 1}'
    call lease/grant '{"TTL": 600, "ID": 2}'
    call lock/lock '{"name": "bA==", "lease": 1}'
    lock second 2
    until_so "the second" grep -q key "$DIR/second"
    count_is l/ l0 1 || fail "the first is still there"
}
check "released when the lease expires" expired

refusals() {
    refused 500 2 "etcdserver: requested lease not found" lock/lock '{"name": "bA==", "lease": 99}'
    refused 500 2 "etcdserver: key is not provided" lock/unlock '{}'
    call lock/lock '{"name": "bA=="}'
    get l/ ', "range_end": "bDA="'
    is "a lease of the server's" string "$(q '.kvs[0].lease | type')"
}
check "without a lease, or with none that is there" refusals
