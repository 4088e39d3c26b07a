# shellcheck shell=sh disable=SC2317,SC2034
# Keys and values: every shape of read, put and delete.
. ./lib.sh

put_and_get() {
    put a 1
    is revision 2 "$(q .header.revision)"
    is "numbers are text" "string string string" "$(q '[.header | .cluster_id, .member_id, .raft_term | type] | join(" ")')"
    put b 2
    put a 3
    get a
    is pairs a=3 "$(pairs)"
    is metadata "2 4 2 null" "$(q '.kvs[0] | "\(.create_revision) \(.mod_revision) \(.version) \(.lease)"')"
    is "count, more" "1 null" "$(q '"\(.count) \(.more)"')"
    get c
    is absent "null null" "$(q '"\(.kvs) \(.count)"')"
}
check "put and get with their revisions" put_and_get

put_options() {
    call kv/put '{"key": "YQ==", "value": "MQ==", "prev_kv": true}'
    is "no pair before" null "$(q .prev_kv)"
    call kv/put '{"key": "YQ==", "value": "Mg==", "prev_kv": true}'
    is "the pair before" "MQ== 2" "$(q '.prev_kv | "\(.value) \(.mod_revision)"')"
    grant 600
    call kv/put "{\"key\": \"YQ==\", \"value\": \"Mw==\", \"lease\": \"$LEASE\"}"
    call kv/put '{"key": "YQ==", "value": "NA==", "ignore_lease": true}'
    get a
    is "the lease is kept" "$LEASE NA==" "$(q '.kvs[0] | "\(.lease) \(.value)"')"
    call kv/put '{"key": "YQ==", "ignore_value": true}'
    get a
    is "the value is kept" "null NA==" "$(q '.kvs[0] | "\(.lease) \(.value)"')"
    refused 400 3 "etcdserver: value is provided" kv/put '{"key": "YQ==", "value": "MQ==", "ignore_value": true}'
    refused 400 3 "etcdserver: lease is provided" kv/put '{"key": "YQ==", "lease": 1, "ignore_lease": true}'
    refused 400 3 "etcdserver: key not found" kv/put '{"key": "Yg==", "ignore_value": true}'
    refused 404 5 "etcdserver: requested lease not found" kv/put '{"key": "YQ==", "lease": "99"}'
}
check "put options" put_options

ranges() {
    for pair in a=1 a/x=2 a/y=3 b=4 c=5; do put "${pair%=*}" "${pair#*=}"; done
    get a
    is point "a=1" "$(pairs)"
    get a ", \"range_end\": \"$(b64 b)\""
    is range "a=1 a/x=2 a/y=3" "$(pairs)"
    get a/ ", \"range_end\": \"$(b64 a0)\""
    is prefix "a/x=2 a/y=3" "$(pairs)"
    get a/y ', "range_end": "AA=="'
    is "from a key" "a/y=3 b=4 c=5" "$(pairs)"
    all
    is all "a=1 a/x=2 a/y=3 b=4 c=5" "$(pairs)"
    get c ", \"range_end\": \"$(b64 b)\""
    is "end before begin" "" "$(pairs)"
    all ', "limit": 2'
    is limit "a=1 a/x=2 5 true" "$(pairs) $(q '"\(.count) \(.more)"')"
    all ', "limit": "5"'
    is "a limit of all" "5 null" "$(q '"\(.count) \(.more)"')"
    all ', "serializable": true'
    is serializable 5 "$(q .count)"
    all ', "keys_only": true, "limit": 2'
    is "keys only" "a= a/x=" "$(pairs)"
    all ', "count_only": true'
    is "count only" "null 5" "$(q '"\(.kvs) \(.count)"')"
}
check "get by point, range, prefix, from a key, all, limits, parts" ranges

sorted() {
    for pair in b=3 a=1 c=2 c=2 c=2 b=3; do put "${pair%=*}" "${pair#*=}"; done
    for row in "KEY a b c" "VERSION a b c" "CREATE b a c" "MOD a c b" "VALUE a c b"; do
        target=${row%% *}
        all ", \"sort_target\": \"$target\", \"sort_order\": \"ASCEND\""
        is "$target" "${row#* }" "$(q '[.kvs[].key | @base64d] | join(" ")')"
        all ", \"sort_target\": \"$target\", \"sort_order\": \"DESCEND\""
        is "$target descending" "${row#* }" "$(q '[.kvs[].key | @base64d] | reverse | join(" ")')"
    done
}
check "get sorted by every target" sorted

between() {
    for pair in a=1 b=2 c=3 a=4; do put "${pair%=*}" "${pair#*=}"; done
    all ', "min_mod_revision": 4'
    is min_mod "a=4 c=3" "$(pairs)"
    all ', "max_mod_revision": "3"'
    is max_mod "b=2" "$(pairs)"
    all ', "min_create_revision": 3'
    is min_create "b=2 c=3" "$(pairs)"
    all ', "max_create_revision": 3'
    is max_create "a=4 b=2" "$(pairs)"
}
check "get between revisions of keys" between

revisions() {
    put a 1
    put a 2
    put b 3
    all ', "revision": "2"'
    is "revision 2" "a=1" "$(pairs)"
    is "its header" 4 "$(q .header.revision)"
    refused 400 11 "etcdserver: mvcc: required revision is a future revision" kv/range "$ALL, \"revision\": 5}"
    call kv/compaction '{"revision": 3, "physical": true}'
    refused 400 11 "etcdserver: mvcc: required revision has been compacted" kv/range "$ALL, \"revision\": 2}"
    refused 400 11 "etcdserver: mvcc: required revision has been compacted" kv/compaction '{"revision": 3}'
    refused 400 11 "etcdserver: mvcc: required revision is a future revision" kv/compaction '{"revision": 9}'
    all ', "revision": 3'
    is "revision 3" "a=2" "$(pairs)"
}
check "get at old, future and compacted revisions" revisions

delete_forms() {
    for pair in a=1 a/x=2 a/y=3 b=4 c=5 d=6; do put "${pair%=*}" "${pair#*=}"; done
    call kv/deleterange "{\"key\": \"$(b64 absent)\"}"
    is nothing "null 7" "$(q '"\(.deleted) \(.header.revision)"')"
    call kv/deleterange "{\"key\": \"$(b64 a)\", \"prev_kv\": true}"
    is point "1 MQ== 8" "$(q '"\(.deleted) \(.prev_kvs[0].value) \(.header.revision)"')"
    call kv/deleterange "{\"key\": \"$(b64 a/)\", \"range_end\": \"$(b64 a0)\"}"
    is prefix "2 null" "$(q '"\(.deleted) \(.prev_kvs)"')"
    call kv/deleterange "{\"key\": \"$(b64 c)\", \"range_end\": \"AA==\", \"prev_kv\": true}"
    is "from a key" "2 Yw== ZA==" "$(q '"\(.deleted) \([.prev_kvs[].key] | join(" "))"')"
    call kv/deleterange "$ALL}"
    is all 1 "$(q .deleted)"
}
check "delete by point, prefix, from a key, all" delete_forms

empty_keys() {
    for body in '{}' '{"value": "MQ=="}' '{"key": ""}'; do
        refused 400 3 "etcdserver: key is not provided" kv/put "$body"
    done
    refused 400 3 "etcdserver: key is not provided" kv/range '{}'
    refused 400 3 "etcdserver: key is not provided" kv/deleterange '{}'
}
check "empty keys are refused" empty_keys

any_bytes() {
    bytes=$(jq -nr '[range(256)] | map("\\" + ("00" + ((. / 64 | floor | tostring) + (. % 64 / 8 | floor | tostring) + (. % 8 | tostring)))[-3:]) | join("")')
    # shellcheck disable=SC2059
    key=$(printf "$bytes" | base64 -w 0)
    call kv/put "{\"key\": \"$key\", \"value\": \"$key\"}"
    call kv/range "{\"key\": \"$key\"}"
    is bytes "$key $key" "$(q '.kvs[0] | "\(.key) \(.value)"')"
    call kv/put '{"key": "-_-_"}'
    call kv/range '{"key": "+/+/"}'
    is "both alphabets" "+/+/ null" "$(q '.kvs[0] | "\(.key) \(.value)"')"
}
check "any bytes, in both alphabets" any_bytes

forms() {
    put a 1
    for body in '{"key": "YQ==", "limit": "1"}' '{"key": "YQ==", "sortOrder": "DESCEND", "sortTarget": 4}' \
        '{"key": "YQ", "revision": null, "unknown": [1]}'; do
        call kv/range "$body"
        is "$body" a=1 "$(pairs)"
    done
    for body in '[]' 'x' '{"key": 7}' '{"key": "YQ==", "limit": "x"}' '{"key": "*"}'; do
        post kv/range "$body"
        is "$body" "400 3" "$STATUS $(q .code)"
    done
    post kv/bogus '{}'
    is "no such call" "404 5 Not Found" "$STATUS $(q '"\(.code) \(.message)"')"
    is "a GET" 501 "$(curl -s -o /dev/null -w '%{http_code}' "$URL/v3/kv/range")"
}
check "forms of requests, and bad ones" forms
