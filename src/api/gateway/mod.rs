//! The JSON gateway: every call of etcd's API as a POST below `/v3/` (contract 4.1).
//!
//! A transcoder, not an implementation: the path names the call (`routes`), the body becomes its message (`json`),
//! the call goes through [`Front`] inside the process, and the answer becomes JSON, a line for each message when there
//! are many (`lines`). What a connection knows of its client's certificate does not go along. Called by `http`.

pub mod json;
mod lines;
mod objects;
mod routes;
mod websocket;

use super::grpc::Front;
use axum::body::Body as Incoming;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use lines::{Client, Messages};
use objects::Objects;
use prost_reflect::MessageDescriptor;
use routes::{Route, Routes};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service;

/// Where all of it is.
pub const PREFIX: &str = "/v3/";
/// JSON text that a message may take, for each of its bytes; base64 takes 4/3.
const TEXT_FACTOR: usize = 2;
/// Messages above this size become JSON on a thread that may block.
const LARGE: usize = 256 << 10;
/// Header fields that begin so become metadata.
const METADATA_PREFIX: &str = "grpc-metadata-";

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    front: Front,
    routes: Arc<Routes>,
    text_bytes_max: usize,
}

impl Gateway {
    /// A gateway to the calls of `front`.
    pub fn new(front: Front) -> Gateway {
        let text_bytes_max = front.message_bytes_max().saturating_mul(TEXT_FACTOR);
        Gateway { front, routes: Arc::new(routes::all()), text_bytes_max }
    }

    /// Answers one request whose path begins with [`PREFIX`].
    pub async fn serve(self, request: Request<Incoming>) -> Response<Body> {
        if websocket::is_upgrade(request.headers()) {
            return websocket::serve(self, request).await;
        }
        let (parts, body) = request.into_parts();
        self.answer(&parts, body).await
    }

    async fn answer(&self, parts: &Parts, body: Incoming) -> Response<Body> {
        let Some(route) = parts.uri.path().strip_prefix(PREFIX).and_then(|path| self.routes.get(path)) else {
            return failure(&Status::not_found("Not Found"));
        };
        if parts.method != Method::POST {
            return failure(&Status::unimplemented("Method Not Allowed"));
        }
        self.call(route, &parts.headers, body).await.unwrap_or_else(|status| failure(&status))
    }

    async fn call(
        &self,
        route: &Route,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Response<Body>, Status> {
        let client = Client { deadline: deadline(headers)?, gone: Arc::default() };
        let body = if route.takes_stream {
            Body::new(Objects::new(body, route.input.clone(), self.text_bytes_max, Arc::clone(&client.gone)))
        } else {
            let (text, input) = (self.collect(body).await?, route.input.clone());
            let frame = offload(text.len(), move || json::to_frame(&input, &text));
            Body::new(Full::new(frame.await?))
        };
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = route.uri.clone();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = metadata(headers);
        let response = match client.waits_for(self.front.clone().call(request)).await? {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let messages = Messages::new(response, client);
        if route.answers_stream {
            Ok(lines::answer(messages, route.output.clone()).await)
        } else {
            unary(messages, route.output.clone()).await
        }
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, Status> {
        let body = Limited::new(body, self.text_bytes_max).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Status::resource_exhausted(format!("the request has more than {} bytes", self.text_bytes_max))
            } else {
                Status::invalid_argument("unexpected EOF")
            }
        })?;
        Ok(body.to_bytes())
    }
}

async fn unary(mut messages: Messages, output: MessageDescriptor) -> Result<Response<Body>, Status> {
    let message = messages.next().await?;
    let message = message.ok_or_else(|| Status::internal("the call ended without an answer"))?;
    if messages.next().await?.is_some() {
        return Err(Status::internal("the call has more than one answer"));
    }
    let text = offload(message.len(), move || {
        let mut text = Vec::with_capacity(2 * message.len());
        json::write(&output, message, &mut text)?;
        Ok(text)
    });
    Ok(success(Body::new(Full::new(Bytes::from(text.await?)))))
}

/// Runs `work` here, or on a thread that may block when there is much of it.
async fn offload<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    if bytes <= LARGE {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Status::unavailable("the server is stopping")))
}

/// What the call learns of the request's header (H-12).
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::with_capacity(4);
    metadata.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(TE, HeaderValue::from_static("trailers"));
    for value in headers.get_all(AUTHORIZATION) {
        metadata.append(AUTHORIZATION, value.clone());
    }
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(METADATA_PREFIX) else { continue };
        // What steers the call itself is not for clients to set.
        if name.starts_with("grpc-") || name == "content-type" || name == "te" || value.to_str().is_err() {
            continue;
        }
        if let Ok(name) = HeaderName::try_from(name) {
            metadata.append(name, value.clone());
        }
    }
    metadata
}

/// When the client stops waiting, if it says so.
fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    Ok(Instant::now().checked_add(timeout(value)?))
}

/// Reads a time limit in gRPC's form, such as `5S` or `100m`.
fn timeout(value: &HeaderValue) -> Result<Duration, Status> {
    let text = value.to_str().unwrap_or_default();
    let parsed = text.split_at_checked(text.len().saturating_sub(1)).and_then(|(number, unit)| {
        let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
        match unit {
            "H" => Some(Duration::from_secs(number * 3600)),
            "M" => Some(Duration::from_secs(number * 60)),
            "S" => Some(Duration::from_secs(number)),
            "m" => Some(Duration::from_millis(number)),
            "u" => Some(Duration::from_micros(number)),
            "n" => Some(Duration::from_nanos(number)),
            _ => None,
        }
    });
    parsed.ok_or_else(|| Status::invalid_argument(format!("invalid grpc-timeout: {text}")))
}

/// Status of HTTP for a code of gRPC (H-8).
fn http_status(code: Code) -> StatusCode {
    let status = match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unauthenticated => 401,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(status).expect("three digits")
}

fn success(body: Body) -> Response<Body> {
    let mut response = respond(StatusCode::OK, body);
    let header = HeaderName::from_static("grpc-metadata-content-type");
    response.headers_mut().insert(header, HeaderValue::from_static("application/grpc"));
    response
}

fn failure(status: &Status) -> Response<Body> {
    let mut response = respond(http_status(status.code()), Body::new(Full::new(json::error(status).into())));
    if status.code() == Code::Unauthenticated
        && let Ok(value) = HeaderValue::try_from(status.message())
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

fn respond(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h_12_only_metadata_goes_along() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "a-token"),
            ("grpc-metadata-token", "another"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-content-type", "text/plain"),
            ("grpc-metadata-grpc-timeout", "1n"),
            ("cookie", "token=third"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let metadata = metadata(&headers);
        assert_eq!(metadata[CONTENT_TYPE], "application/grpc");
        assert_eq!(metadata[AUTHORIZATION], "a-token");
        assert_eq!(
            (&metadata["token"], &metadata["hasleader"]),
            (&"another".parse().unwrap(), &"true".parse().unwrap())
        );
        assert_eq!(metadata.len(), 5);
    }

    #[test]
    fn time_limits_are_read() {
        let read = |text| timeout(&HeaderValue::from_static(text)).ok();
        assert_eq!(read("5S"), Some(Duration::from_secs(5)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        for text in ["", "S", "5", "5s", "-1S", "123456789S"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn h_8_codes() {
        let statuses: Vec<u16> = (0..=16).map(|code| http_status(Code::from(code)).as_u16()).collect();
        assert_eq!(
            statuses,
            [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]
        );
    }
}
