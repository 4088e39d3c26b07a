//! Transactions that attach keys.

use kvist::pb::rfc as pb;

use super::client::{
    DUPLICATE_KEY, EMPTY_KEY, KEY_NOT_FOUND, LEASE_NOT_FOUND, TOO_MANY_OPS, answers, attachment, delete_op,
    missing, put_op, refused, sound, start, tnx, watch,
};

fn lease_tnx(
    request: pb::TnxRequest,
    success: impl Into<Vec<pb::LeaseAttachRequest>>,
    failure: impl Into<Vec<pb::LeaseAttachRequest>>,
) -> pb::LeaseTnxRequest {
    pb::LeaseTnxRequest { request: Some(request), success: success.into(), failure: failure.into() }
}

#[tokio::test]
async fn case_35_a_key_is_made_with_its_lease() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let mut watches = client.watching(watch("k", "")).await;
    let lease = client.lease().await;
    let request = lease_tnx(tnx([missing("k")], [put_op("k", "v")], []), [attachment(lease, "k")], []);
    let done = client.lease_tnx(request.clone()).await;
    let response = done.response.as_ref().expect("the answer of the transaction");
    assert_eq!((sound(&done.header), response.succeeded), (base + 1, Some(true)));
    assert_eq!((&response.header, answers(response)), (&done.header, vec!["put".to_owned()]));
    assert_eq!(done.attach_responses.len(), 1);
    assert_eq!(done.attach_responses[0].header, done.header);
    assert_eq!(client.attached(lease).await, ["k"]);

    let again = client.lease_tnx(request).await;
    assert_eq!((sound(&again.header), again.attach_responses.len()), (base + 1, 0));
    assert_eq!(again.response.expect("an answer").succeeded, Some(false));
    client.revoke(lease).await;
    assert_eq!(watches.brief(base).await, "+1: put k=v@+1 v1");
    assert_eq!(watches.brief(base).await, "+2: expire k=v@+1 v1");
}

#[tokio::test]
async fn case_36_all_or_nothing() {
    let (_server, client) = start(&["--max-txn-ops=4"]).await;
    client.put("there", "").await;
    let (base, lease) = (client.index().await, client.lease().await);
    let put = || tnx([], [put_op("k", "v")], []);
    let delete = tnx([], [put_op("k", "v"), delete_op("there", "")], []);
    let rows = [
        (lease_tnx(put(), [attachment(4711, "k")], []), LEASE_NOT_FOUND),
        (lease_tnx(put(), [attachment(lease, "k"), attachment(4711, "k")], []), LEASE_NOT_FOUND),
        (lease_tnx(put(), [attachment(lease, "missing")], []), KEY_NOT_FOUND),
        (lease_tnx(delete, [attachment(lease, "there")], []), KEY_NOT_FOUND),
        (lease_tnx(put(), [attachment(lease, "")], []), EMPTY_KEY),
        (lease_tnx(put(), [], vec![attachment(lease, "k"); 5]), TOO_MANY_OPS),
        (lease_tnx(tnx([], [put_op("k", ""), put_op("k", "")], []), [], []), DUPLICATE_KEY),
    ];
    for (request, error) in rows {
        let refusal = client.lease_tnx(request).await;
        assert_eq!(refused(&refusal.header, error), base);
        assert_eq!((refusal.response, refusal.attach_responses.len()), (None, 0));
        assert!(client.get("k").await.is_none());
    }
    assert_eq!(client.value("there").await, "");
    assert!(client.attached(lease).await.is_empty());
}

#[tokio::test]
async fn case_37_the_guard_chooses_the_attachments_too() {
    let (_server, client) = start(&[]).await;
    client.put("k", "v").await;
    let (base, lease) = (client.index().await, client.lease().await);
    // What does not run is not looked at.
    let success = [attachment(4711, "no such key")];
    let request = lease_tnx(tnx([missing("k")], [], []), success, [attachment(lease, "k")]);
    let done = client.lease_tnx(request).await;
    assert_eq!((sound(&done.header), done.attach_responses.len()), (base, 1));
    assert_eq!(done.response.expect("an answer").succeeded, Some(false));
    assert_eq!(client.attached(lease).await, ["k"]);

    // Without a transaction the guard is true.
    let second = client.lease().await;
    let success = vec![attachment(second, "k")];
    let done = client.lease_tnx(pb::LeaseTnxRequest { success, ..Default::default() }).await;
    assert_eq!(done.response.expect("an answer").succeeded, Some(true));
    assert_eq!(client.attached(second).await, ["k"]);
    let nothing = client.lease_tnx(pb::LeaseTnxRequest::default()).await;
    assert_eq!((sound(&nothing.header), nothing.attach_responses.len()), (base, 0));
}
