# shellcheck shell=sh disable=SC2317
# Elections. The name is e; values are "1", "2", "3".
. ./lib.sh

candidate() { stream "$1" election/campaign "{\"name\": \"ZQ==\", \"lease\": $2, \"value\": \"$(b64 "$2")\"}"; }

campaign() {
    call election/campaign "{\"name\": \"ZQ==\", \"lease\": $1, \"value\": \"$(b64 "$1")\"}"
    LEADER=$(q '.leader | tojson')
}

leader_is() {
    call election/leader '{"name": "ZQ=="}'
    is leader "$1" "$(q '.kv.value | @base64d')"
}

round() {
    refused 500 2 "election: no leader" election/leader '{"name": "ZQ=="}'
    call lease/grant '{"TTL": 600, "ID": 1}'
    campaign 1
    is "the leader's key" "ZQ== e/1 2 1" "$(echo "$LEADER" | jq -r '"\(.name) \(.key | @base64d) \(.rev) \(.lease)"')"
    leader_is 1
    call election/proclaim "{\"leader\": $LEADER, \"value\": \"Mg==\"}"
    leader_is 2
    is "the same key" "2 2" "$(q '.kv | "\(.create_revision) \(.version)"')"
    call election/resign "{\"leader\": $LEADER}"
    refused 500 2 "election: no leader" election/leader '{"name": "ZQ=="}'
    refused 500 2 "election: not leader" election/proclaim "{\"leader\": $LEADER, \"value\": \"Mg==\"}"
    refused 500 2 "etcdserver: requested lease not found" election/campaign '{"name": "ZQ==", "lease": 99}'
}
check "campaign, leader, proclaim, resign" round

observe() {
    for id in 1 2; do call lease/grant "{\"TTL\": 600, \"ID\": $id}"; done
    campaign 1
    stream o election/observe '{"name": "ZQ=="}'
    line o 1
    is first MQ== "$(q .result.kv.value)"
    call election/proclaim "{\"leader\": $LEADER, \"value\": \"OQ==\"}"
    line o 2
    is proclaimed OQ== "$(q .result.kv.value)"
    candidate second 2
    until_so "the second candidate" count_is e/ e0 2
    call election/resign "{\"leader\": $LEADER}"
    line o 3
    is second Mg== "$(q .result.kv.value)"
}
check "observe" observe

fail_over() {
    call lease/grant '{"TTL": 600, "ID": 1}'
    call lease/grant '{"TTL": 3, "ID": 2}'
    call lease/grant '{"TTL": 600, "ID": 3}'
    campaign 1
    candidate second 2
    until_so "the second candidate" count_is e/ e0 2
    is "the second waits" "" "$(cat "$DIR/second")"
    call lease/revoke '{"ID": 1}'
    candidate third 3
    until_so "the third" grep -q leader "$DIR/third"
    leader_is 3
    count_is e/ e0 1 || fail "others are still there"
}
check "fail-over by revoked and expired leases" fail_over
