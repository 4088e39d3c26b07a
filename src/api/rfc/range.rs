//! `Range` without generated code; see `api/range.rs`.

use super::error::Fault;
use super::{Rfc, convert, token, wire};
use crate::api::caller::Credentials;
use crate::api::grpc::body::{self, PREFIX};
use crate::api::range::{self, End, Form};
use crate::engine::Image;
use crate::engine::timing::What;
use crate::pb::rfc::{RangeRequest, RangeResponse};
use bytes::Bytes;
use http::{Request, Response};
use prost::Message;
use std::convert::Infallible;
use tonic::Status;
use tonic::body::Body;

/// Serves one call.
pub async fn serve(rfc: Rfc, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let answer = match range(rfc.clone(), request).await {
        Ok(response) => Ok(response),
        Err(fault) => rfc.refuse(fault).and_then(|answer| refusal(&answer)),
    };
    Ok(answer.unwrap_or_else(Status::into_http))
}

fn refusal(answer: &RangeResponse) -> Result<Response<Body>, Status> {
    let mut out = vec![0; PREFIX];
    answer.encode(&mut out).expect("a vector grows");
    match range::whole(out, 0) {
        Ok(found) => Ok(found.response),
        Err(range::Failure::Status(status)) => Err(status),
        Err(range::Failure::Engine(error)) => Err(crate::api::etcd::error::status(error)),
    }
}

async fn range(rfc: Rfc, request: Request<Body>) -> Result<Response<Body>, Fault> {
    let credentials = Credentials::of(request.headers(), request.extensions());
    let request: RangeRequest = body::read_unary(request).await?;
    let token = request.consistent_token.clone().filter(|token| !token.is_empty());
    let query = convert::range(request, rfc.cluster())?;
    // Whoever gave the token had applied its index, so it is there once we know as much as anybody.
    if token.is_none() || rfc.engine.revision() < query.revision {
        rfc.engine.read_index().await?;
    }
    let caller = credentials.caller(&rfc.engine)?;
    let permit = rfc.engine.permit_range(caller.as_ref(), &query.range)?;
    let reading = rfc.engine.begin_read(What::Range(query.clone()));
    let engine = rfc.engine.clone();
    let found = range::in_key_order(&engine, query, permit, Pairs { rfc, token }).await;
    reading.end(found.as_ref().ok().map(|found| (found.count, Some(found.bytes))));
    Ok(found?.response)
}

/// The answer as the draft has it.
#[derive(Clone)]
struct Pairs {
    rfc: Rfc,
    /// Of the request.
    token: Option<Bytes>,
}

impl Form for Pairs {
    fn pair_len(&self, key: &[u8], image: &Image<'_>) -> usize {
        wire::range_kv_len(key, image)
    }

    fn put_pair_head(&self, out: &mut Vec<u8>, key: &[u8], image: &Image<'_>) {
        wire::put_range_kv_head(out, key, image);
    }

    fn has_values(&self) -> bool {
        true
    }

    fn tells_of_more(&self) -> bool {
        false
    }

    fn put_tail(&self, out: &mut Vec<u8>, end: &End) {
        let token = self.token.clone().unwrap_or_else(|| token::encode(self.rfc.cluster(), end.revision));
        let header = Some(self.rfc.header(end.revision));
        let tail = RangeResponse { header, kvs: Vec::new(), consistent_token: Some(token) };
        tail.encode(out).expect("a vector grows");
    }
}
