# shellcheck shell=sh disable=SC2317
# Leases.
. ./lib.sh

life() {
    call lease/grant '{"TTL": "600", "ID": 7}'
    is granted "7 600 1" "$(q '"\(.ID) \(.TTL) \(.header.revision)"')"
    refused 400 9 "etcdserver: lease already exists" lease/grant '{"TTL": 600, "ID": 7}'
    refused 400 11 "etcdserver: too large lease TTL" lease/grant '{"TTL": 9000000001}'
    call lease/grant '{"TTL": 1, "ID": 9}'
    is "the shortest" 2 "$(q .TTL)"
    post lease/revoke '{"ID": 9}' # it may have expired by now
    for key in YQ== Yg==; do call kv/put "{\"key\": \"$key\", \"lease\": 7}"; done
    call lease/timetolive '{"ID": 7, "keys": true}'
    is "time to live" "7 600 YQ== Yg==" "$(q '"\(.ID) \(.grantedTTL) \(.keys | sort | join(" "))"')"
    [ "$(q .TTL)" -gt 500 ] || fail "TTL $(q .TTL)"
    call lease/grant '{"TTL": 600, "ID": 8}'
    call lease/leases '{}'
    is list "7 8" "$(q '[.leases[].ID] | sort | join(" ")')"
    call lease/revoke '{"ID": "7"}'
    is revision 4 "$(q .header.revision)"
    all
    is "no keys" null "$(q .count)"
}
check "grant, time to live, attached keys, list, revoke" life

absent() {
    refused 404 5 "etcdserver: requested lease not found" lease/revoke '{"ID": 9}'
    refused 404 5 "etcdserver: requested lease not found" kv/put '{"key": "YQ==", "lease": 9}'
    call lease/timetolive '{"ID": 9}'
    is "time to live" "-1 null" "$(q '"\(.TTL) \(.grantedTTL)"')"
    call lease/keepalive '{"ID": 9}'
    is "keep alive" "9 null" "$(q '.result | "\(.ID) \(.TTL)"')"
}
check "what is not there" absent

keep_alive() {
    call lease/grant '{"TTL": 60, "ID": 7}'
    call lease/keepalive '{"ID": 7} {"ID": "7"} {"ID": 8}'
    is answers "60 60 null" "$(jq -r '.result.TTL' "$OUT" | paste -s -d ' ')"
}
check "keep alive, several in one request" keep_alive

expiry() {
    call lease/grant '{"TTL": 4, "ID": 7}'
    call kv/put '{"key": "YQ==", "value": "MQ==", "lease": 7}'
    stream w watch '{"create_request": {"key": "YQ==", "prev_kv": true}}'
    line w 1
    end=$(($(date +%s) + 8)) # twice as long as it would live by itself
    while [ "$(date +%s)" -lt "$end" ]; do
        call lease/keepalive '{"ID": 7}'
        is "keep alive" 4 "$(q .result.TTL)"
        sleep 0.3
    done
    get a
    is "kept alive" a=1 "$(pairs)"
    saw w "delete a @3"
    line w 2
    is "its lease" 7 "$(q '.result.events[0].prev_kv.lease')"
}
check "expiry, and keeping alive against it" expiry
