//! `KV.Range` without generated code; see `api/range.rs`.

use super::wire::{put_range_kv_head, range_kv_len};
use super::{Etcd, check, convert, error};
use crate::api::caller::Credentials;
use crate::api::grpc::body::{self, PREFIX};
use crate::api::range::{self, End, Failure, Found};
use crate::engine::command::{Range, SortTarget};
use crate::engine::scan::Scan;
use crate::engine::timing::What;
use crate::engine::{self, Image, Permit};
use crate::pb::etcdserverpb::{RangeRequest, RangeResponse};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use prost::Message;
use std::convert::Infallible;
use tonic::Status;
use tonic::body::Body;

/// Serves one call.
pub async fn serve<B>(etcd: Etcd, request: Request<B>) -> Result<Response<Body>, Infallible>
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    Ok(range(etcd, request).await.unwrap_or_else(Status::into_http))
}

async fn range<B>(etcd: Etcd, request: Request<B>) -> Result<Response<Body>, Status>
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    etcd.check_metadata(request.headers())?;
    let credentials = Credentials::of(request.headers(), request.extensions());
    let request: RangeRequest = body::read_unary(request).await?;
    check::range(&request)?;
    if !request.serializable {
        if etcd.engine.is_learner() {
            return Err(error::Error::NotForLearner.into());
        }
        etcd.engine.read_index().await.map_err(error::status)?;
    }
    let query = convert::range(request);
    let caller = etcd.caller_with(&credentials)?;
    let permit = etcd.engine.permit_range(caller.as_ref(), &query.range).map_err(error::status)?;
    let reading = etcd.engine.begin_read(What::Range(query.clone()));
    let found = if Scan::can(&query) {
        let form = Form { keys_only: query.keys_only, etcd };
        let engine = form.etcd.engine.clone();
        range::in_key_order(&engine, query, permit, form).await
    } else {
        sorted(etcd, query, permit).await
    };
    reading.end(found.as_ref().ok().map(|found| (found.count, Some(found.bytes))));
    match found {
        Ok(found) => Ok(found.response),
        Err(Failure::Engine(error)) => Err(error::status(error)),
        Err(Failure::Status(status)) => Err(status),
    }
}

async fn sorted(etcd: Etcd, query: Range, mut permit: Permit) -> Result<Found, Failure> {
    let keys_only = query.keys_only;
    let keeps_lease = query.sort.target == SortTarget::Value;
    let (revision, found) = etcd.engine.range(query).await?;
    etcd.engine.still_permits(&mut permit)?;
    let mut out = vec![0; PREFIX];
    for kv in &found.kvs {
        let image = Image::parse(&kv.image).map_err(|e| Status::internal(e.to_string()))?;
        put_range_kv_head(&mut out, &kv.key, &image, keys_only && !keeps_lease);
        if let engine::Value::Inline(value) = image.value {
            out.extend_from_slice(value);
        }
    }
    put_tail(&etcd, &mut out, &End { revision, more: found.more, count: found.count });
    range::whole(out, found.kvs.len() as i64)
}

/// The answer as etcd's API has it.
#[derive(Clone)]
struct Form {
    etcd: Etcd,
    keys_only: bool,
}

impl range::Form for Form {
    fn pair_len(&self, key: &[u8], image: &Image<'_>) -> usize {
        range_kv_len(key, image, self.keys_only)
    }

    fn put_pair_head(&self, out: &mut Vec<u8>, key: &[u8], image: &Image<'_>) {
        put_range_kv_head(out, key, image, self.keys_only);
    }

    fn has_values(&self) -> bool {
        !self.keys_only
    }

    fn tells_of_more(&self) -> bool {
        true
    }

    fn put_tail(&self, out: &mut Vec<u8>, end: &End) {
        put_tail(&self.etcd, out, end);
    }
}

/// Header, `more` and `count`.
fn put_tail(etcd: &Etcd, out: &mut Vec<u8>, &End { revision, more, count }: &End) {
    let tail = RangeResponse { header: Some(etcd.header(revision)), kvs: Vec::new(), more, count };
    tail.encode(out).expect("a vector grows");
}
