# shellcheck shell=sh disable=SC2317
# What operators ask, and the pages beside the gateway.
. ./lib.sh

server_status() {
    put a 1
    call maintenance/status '{}'
    is version 3.7.1 "$(q .version)"
    is "leads itself" "$(q .header.member_id)" "$(q .leader)"
    [ "$(q .dbSize)" -gt 0 ] || fail "dbSize $(q .dbSize)"
    call cluster/member/list '{}'
    is members "default $URL" "$(q '.members[0] | "\(.name) \(.clientURLs[0])"')"
    is /health '{"health":"true","reason":""}' "$(curl -s "$URL/health")"
    is /version "3.7.1 3.7.0" "$(curl -s "$URL/version" | jq -r '"\(.etcdserver) \(.etcdcluster)"')"
    is /metrics 1 "$(metric etcd_server_has_leader)"
}
check "status, members, health, version, metrics" server_status

alarms() {
    put a 1
    call maintenance/status '{}'
    member=$(q .header.member_id)
    call maintenance/alarm "{\"action\": \"ACTIVATE\", \"memberID\": \"$member\", \"alarm\": \"NOSPACE\"}"
    call maintenance/alarm '{}'
    is alarms "$member NOSPACE" "$(q '.alarms[] | "\(.memberID) \(.alarm)"')"
    refused 429 8 "etcdserver: mvcc: database space exceeded" kv/put '{"key": "YQ=="}'
    call kv/deleterange '{"key": "YQ=="}'
    call maintenance/alarm "{\"action\": \"DEACTIVATE\", \"memberID\": \"$member\", \"alarm\": \"NOSPACE\"}"
    call maintenance/alarm '{}'
    is "no alarms" null "$(q .alarms)"
    put a 2
}
check "alarms" alarms

hashes() {
    put a 1
    put a 2
    call maintenance/hashkv '{}'
    hash=$(q .hash)
    is "a number" "number 3" "$(q '"\(.hash | type) \(.hash_revision)"')"
    call maintenance/hashkv '{"revision": "3"}'
    is "the same" "$hash" "$(q .hash)"
    call maintenance/hash '{}'
    is "of all" number "$(q '.hash | type')"
    call kv/compaction '{"revision": 3}'
    call maintenance/defragment '{}'
    get a
    is "after defragmentation" a=2 "$(pairs)"
}
check "hashes, defragment" hashes

snapshot() {
    put a 1
    call maintenance/snapshot '{}'
    jq -r '.result.blob // empty' "$OUT" | while read -r blob; do echo "$blob" | base64 -d; done >"$DIR/snapshot"
    size=$(wc -c <"$DIR/snapshot")
    is "pages, and a sum" 32 $((size % 512))
    is "bbolt's magic number" "edda0ced" "$(tail -c +17 "$DIR/snapshot" | head -c 4 | od -A n -t x1 | tr -d ' ')"
    sum=$(tail -c 32 "$DIR/snapshot" | od -A n -t x1 | tr -d ' \n')
    is "the sum" "$sum" "$(head -c $((size - 32)) "$DIR/snapshot" | sha256sum | cut -d ' ' -f 1)"
}
check "snapshot" snapshot
