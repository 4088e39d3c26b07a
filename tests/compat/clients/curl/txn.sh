# shellcheck shell=sh disable=SC2317
# Transactions.
. ./lib.sh

# holds COMPARE: "true" or "null"
holds() {
    call kv/txn "{\"compare\": [$1]}"
    q .succeeded
}

compare_and_swap() {
    put a 1
    swap='{"compare": [{"key": "YQ==", "target": "VALUE", "value": "MQ=="},
        {"key": "Yg==", "target": "VERSION", "version": "0"}],
        "success": [{"request_put": {"key": "YQ==", "value": "Mg=="}}, {"request_put": {"key": "Yg=="}}],
        "failure": [{"request_range": {"key": "YQ=="}}]}'
    call kv/txn "$swap"
    is first "true 3" "$(q '"\(.succeeded) \(.header.revision)"')"
    call kv/txn "$swap"
    is second "null 3 Mg==" "$(q '"\(.succeeded) \(.header.revision) \(.responses[0].response_range.kvs[0].value)"')"
}
check "compare and swap" compare_and_swap

every_compare() {
    grant 600
    put other 0
    put a 1
    call kv/put "{\"key\": \"YQ==\", \"value\": \"bQ==\", \"lease\": \"$LEASE\"}" # version 2, created 3, modified 4
    for row in "VERSION version 1 2 3" "CREATE create_revision 2 3 4" "MOD mod_revision 3 4 5" \
        "VALUE value bA== bQ== bg==" "LEASE lease $((LEASE - 1)) $LEASE $((LEASE + 1))"; do
        # shellcheck disable=SC2086
        set -- $row
        for want in "EQUAL null true null" "NOT_EQUAL true null true" "GREATER true null null" "LESS null null true"; do
            result=${want%% *}
            seen=$result
            for operand in "$3" "$4" "$5"; do
                seen="$seen $(holds "{\"key\": \"YQ==\", \"target\": \"$1\", \"result\": \"$result\", \"$2\": \"$operand\"}")"
            done
            is "$1" "$want" "$seen"
        done
    done
    is "a value that is not there" null "$(holds '{"key": "eA==", "target": "VALUE", "value": ""}')"
    is "the revision of what is not there" true "$(holds '{"key": "eA==", "target": "MOD", "mod_revision": 0}')"
    ones='{"key": "YQ==", "range_end": "eg==", "target": "VERSION", "result": "GREATER", "version": 0}'
    is "a range" true "$(holds "$ones")"
}
check "every compare" every_compare

answers() {
    put a 1
    put b 2
    call kv/txn '{"success": [{"request_put": {"key": "YQ==", "value": "Mw==", "prev_kv": true}},
        {"request_range": {"key": "YQ==", "range_end": "eg=="}},
        {"request_delete_range": {"key": "Yg==", "prev_kv": true}},
        {"requestRange": {"key": "AA==", "rangeEnd": "AA=="}}]}'
    is put "MQ==" "$(q '.responses[0].response_put.prev_kv.value')"
    is "read after write" "Mw== Mg==" "$(q '[.responses[1].response_range.kvs[].value] | join(" ")')"
    is delete "1 Mg==" "$(q '.responses[2].response_delete_range | "\(.deleted) \(.prev_kvs[0].value)"')"
    is "read after delete" "YQ== 4" "$(q '.responses[3].response_range.kvs | map("\(.key) \(.mod_revision)") | join(" ")')"
    is revision 4 "$(q .header.revision)"
}
check "answers in order, one revision" answers

nested() {
    put a 1
    call kv/txn '{"compare": [{"key": "YQ==", "target": "VALUE", "value": "MQ=="}],
        "success": [{"request_put": {"key": "Yg==", "value": "MQ=="}},
            {"request_txn": {"compare": [{"key": "YQ==", "target": "VALUE", "value": "Mg=="}],
                "success": [{"request_put": {"key": "dA=="}}],
                "failure": [{"request_range": {"key": "YQ=="}}]}}]}'
    is nested "true null MQ==" \
        "$(q '"\(.succeeded) \(.responses[1].response_txn.succeeded) \(.responses[1].response_txn.responses[0].response_range.kvs[0].value)"')"
    all
    is keys "a=1 b=1" "$(pairs)"
}
check "nested" nested

refusals() {
    put='{"request_put": {"key": "YQ=="}}'
    refused 400 3 "etcdserver: duplicate key given in txn request" kv/txn "{\"success\": [$put, $put]}"
    refused 400 3 "etcdserver: too many operations in txn request" kv/txn \
        '{"success": [{"request_range": {"key": "YQ=="}}, {"request_range": {"key": "YQ=="}}, {"request_range": {"key": "YQ=="}}]}'
    refused 400 3 "etcdserver: key is not provided" kv/txn '{"success": [{"request_put": {}}]}'
    refused 400 11 "etcdserver: mvcc: required revision is a future revision" kv/txn \
        "{\"success\": [$put, {\"request_range\": {\"key\": \"YQ==\", \"revision\": 9}}]}"
    all
    is "nothing is done" "null 1" "$(q '"\(.kvs) \(.header.revision)"')"
}
check "one key twice, too many operations, no key, undone" refusals '{"flags": ["--max-txn-ops=2"]}'

# Adds one to n, twelve times.
count_up() {
    OUT=$DIR/counter.$1
    step=0
    while [ "$step" -lt 12 ]; do
        get n
        number=$(pairs)
        call kv/txn "{\"compare\": [{\"key\": \"bg==\", \"target\": \"MOD\", \"mod_revision\": \"$(q '.kvs[0].mod_revision')\"}],
            \"success\": [{\"request_put\": {\"key\": \"bg==\", \"value\": \"$(b64 $((${number#n=} + 1)))\"}}]}"
        [ "$(q .succeeded)" != true ] || step=$((step + 1))
    done
}

counters() {
    put n 0
    count_up 1 &
    first=$!
    count_up 2 &
    second=$!
    wait "$first" || fail "the first counter: $(cat "$DIR/reason")"
    wait "$second" || fail "the second counter: $(cat "$DIR/reason")"
    get n
    is count "n=24 25" "$(pairs) $(q '.kvs[0].version')"
}
check "counters by two shells" counters
