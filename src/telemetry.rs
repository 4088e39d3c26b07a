//! Distributed tracing: a span for each gRPC call, sent to a collector by OpenTelemetry's protocol over gRPC. Names and
//! attributes are those of etcd's instrumentation. Off, it costs one look at a cell.
//!
//! Spans wait in a queue of the exporter, which is bounded and drops what finds no room; no request waits for it.
//! Started by `server`; `api::grpc` begins and ends the spans.

use crate::config::Tracing;
use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer, TracerProvider};
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use std::sync::OnceLock;

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sends spans until it is stopped.
pub struct Exporter(SdkTracerProvider);

/// Begins to make spans. The collector need not be there yet. Called once, inside a runtime.
pub fn start(config: &Tracing) -> Result<Exporter, String> {
    let endpoint = format!("http://{}", config.address);
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter = exporter.map_err(|error| error.to_string())?;
    let mut attributes = vec![KeyValue::new("service.name", config.service.clone())];
    if !config.instance.is_empty() {
        attributes.push(KeyValue::new("service.instance.id", config.instance.clone()));
    }
    let sampler = match config.per_million {
        0 => Sampler::AlwaysOff,
        rate => Sampler::TraceIdRatioBased(f64::from(rate) / 1e6),
    };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder_empty().with_attributes(attributes).build())
        .with_sampler(Sampler::ParentBased(Box::new(sampler)))
        .build();
    let _ = TRACER.set(provider.tracer("kvist")); // a second server in the process sends to the first one's collector
    Ok(Exporter(provider))
}

impl Exporter {
    /// Sends what waits, and stops. Blocks, for five seconds at most.
    pub fn stop(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "could not send the last traces");
        }
    }
}

struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The span of a call.
pub struct Span(opentelemetry_sdk::trace::Span);

impl Span {
    /// Begins the span of a call of `method`, such as `etcdserverpb.KV/Put`, whose caller may be in a trace already
    /// (`traceparent`). `None`: there is no tracing, or this trace is not kept.
    pub fn begin(method: &'static str, headers: &HeaderMap) -> Option<Span> {
        let tracer = TRACER.get()?;
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        let attributes = [KeyValue::new("rpc.method", method), KeyValue::new("rpc.system.name", "grpc")];
        let builder = tracer.span_builder(method).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = tracer.build_with_context(builder, &parent);
        span.is_recording().then_some(Span(span))
    }

    /// Ends it with the name of a status code, and whether that is the server's fault.
    pub fn end(mut self, code: &'static str, is_fault: bool) {
        self.0.set_attribute(KeyValue::new(Key::from_static_str("rpc.response.status_code"), code));
        if is_fault {
            self.0.set_status(Status::error(code));
        }
        self.0.end();
    }
}
