# shellcheck shell=sh disable=SC2317
# Large requests and answers. Bodies come from files: a command line has less room.
. ./lib.sh

MIB=1048576

# body SIZE: a put of a value of so many bytes, in $DIR/body
body() {
    {
        printf '{"key": "YQ==", "value": "'
        head -c "$1" /dev/zero | tr '\0' v | base64 -w 0
        printf '"}'
    } >"$DIR/body"
}

values() {
    body "$MIB"
    call kv/put "@$DIR/body"
    get a
    is size "$MIB" "$(jq -r '.kvs[0].value' "$OUT" | base64 -d | tr -d -c v | wc -c)"
    body $((MIB * 3 / 2))
    refused 400 3 "etcdserver: request is too large" kv/put "@$DIR/body"
    body $((MIB * 5 / 2))
    refused 429 8 "grpc: received message larger than max ($((MIB * 5 / 2 + 8)) vs. $((MIB * 2)))" kv/put "@$DIR/body"
    get a
    is version 1 "$(q '.kvs[0].version')"
}
check "a value of a mebibyte, and what is too large" values

many_keys() {
    begin=0
    while [ "$begin" -lt 10000 ]; do
        jq -nc "[range($begin; $begin + 100) | {request_put: {key: (\"k\" + (100000 + . | tostring) | @base64), value: (tostring | @base64)}}] | {success: .}" >"$DIR/body"
        call kv/txn "@$DIR/body"
        begin=$((begin + 100))
    done
    all
    is count "10000 10000 101" "$(q '"\(.count) \(.kvs | length) \(.header.revision)"')"
    is order true "$(q '[range(10000)] == [.kvs[].value | @base64d | tonumber]')"
    all ', "limit": 10, "sort_target": "VALUE", "sort_order": "DESCEND"'
    is "sorted by value" "k109999=9999" "$(pairs | cut -d ' ' -f 1)"
}
check "an answer of 10 000 keys" many_keys

long_answer() {
    body "$MIB"
    for key in YQ== Yg== Yw== ZA== ZQ== Zg==; do
        sed "s/YQ==/$key/" "$DIR/body" >"$DIR/one"
        call kv/put "@$DIR/one"
    done
    all
    is sizes "6 $(((MIB + 2) / 3 * 4))" "$(q '"\(.kvs | length) \(.kvs | map(.value | length) | max)"')"
}
check "an answer of 6 MiB" long_answer
