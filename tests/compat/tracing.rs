//! Distributed tracing: spans of calls arrive at a collector.

use crate::support::{Server, is_foreign_server};
use kvist::pb::etcdserverpb as pb;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Hands on what it gets.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.try_send(request.into_inner()); // more than the test looks at
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_is_a_span_in_the_trace_of_its_client() {
    let listener = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut received) = mpsc::channel(100);
    let collector =
        tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(collector.serve_with_incoming(listener));
    let server = Server::start_with(&[
        "--enable-distributed-tracing",
        &format!("--distributed-tracing-address={address}"),
        "--distributed-tracing-service-name=store",
        "--distributed-tracing-instance-id=one",
        "--distributed-tracing-sampling-rate=1000000",
    ]);
    let channel = tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect().await.unwrap();
    let mut client = pb::kv_client::KvClient::new(channel);
    let mut request = Request::new(pb::PutRequest { key: b"k".to_vec(), ..Default::default() });
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    client.put(request).await.unwrap();
    let find = async {
        loop {
            for spans in received.recv().await.expect("the collector runs").resource_spans {
                let resource = spans.resource.expect("a resource").attributes;
                let mut all = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
                if let Some(span) = all.find(|span| span.name == "etcdserverpb.KV/Put") {
                    return (resource, span);
                }
            }
        }
    };
    let (resource, span) = tokio::time::timeout(Duration::from_secs(30), find).await.expect("a span in time");
    assert_eq!(text(&resource, "service.name").as_deref(), Some("store"));
    assert_eq!(text(&resource, "service.instance.id").as_deref(), Some("one"));
    assert_eq!(span.trace_id[..4], [0x0a, 0xf7, 0x65, 0x19]);
    assert_eq!(span.parent_span_id[..4], [0xb7, 0xad, 0x6b, 0x71]);
    assert_eq!(text(&span.attributes, "rpc.method").as_deref(), Some("etcdserverpb.KV/Put"));
    assert_eq!(text(&span.attributes, "rpc.response.status_code").as_deref(), Some("OK"));
    if !is_foreign_server() {
        assert_eq!(text(&span.attributes, "rpc.system.name").as_deref(), Some("grpc"));
    }
}
