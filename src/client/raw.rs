//! Calls whose answers are left as bytes, for a caller who wants to look at a part of them only: the load tool, to which
//! ten thousand pairs of which it reads two are mostly memory to be allocated. Called by `bench`.

use super::{Link, Status, Streaming};
use crate::pb::etcdserverpb::{RangeRequest, WatchRequest};
use crate::pb::rfc;
use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::uri::PathAndQuery;
use prost::Message;
use std::marker::PhantomData;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response};

/// Longest answer that is taken.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// `KV.Range`: the message of the answer.
pub async fn range(link: Link, request: RangeRequest) -> Result<Bytes, Status> {
    let mut grpc = ready(link).await?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    grpc.unary(Request::new(request), path, Raw(PhantomData)).await.map(Response::into_inner)
}

/// `Range` of the draft of etcd's third API: the message of the answer.
pub async fn rfc_range(link: Link, request: rfc::RangeRequest) -> Result<Bytes, Status> {
    let mut grpc = ready(link).await?;
    let path = PathAndQuery::from_static("/etcd/Range");
    grpc.unary(Request::new(request), path, Raw(PhantomData)).await.map(Response::into_inner)
}

/// `Watch.Watch`: the messages of the answer.
pub async fn watch(
    link: Link,
    requests: impl Stream<Item = WatchRequest> + Send + 'static,
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = ready(link).await?;
    let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    grpc.streaming(Request::new(requests), path, Raw(PhantomData)).await.map(Response::into_inner)
}

async fn ready(link: Link) -> Result<Grpc<Link>, Status> {
    let mut grpc = Grpc::new(link).max_decoding_message_size(ANSWER_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(grpc)
}

/// Encodes messages of type `M`, and does not decode.
struct Raw<M>(PhantomData<fn(M)>);

impl<M: Message + 'static> Codec for Raw<M> {
    type Encode = M;
    type Decode = Bytes;
    type Encoder = Raw<M>;
    type Decoder = Raw<M>;

    fn encoder(&mut self) -> Raw<M> {
        Raw(PhantomData)
    }

    fn decoder(&mut self) -> Raw<M> {
        Raw(PhantomData)
    }
}

impl<M: Message> Encoder for Raw<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, message: M, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<M> Decoder for Raw<M> {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
