//! Calls over a websocket (H-11), for browsers: each message of the client is a part of the request's body, each line
//! of the answer a message of the server. The method is POST whatever the upgrade said; a token comes as the second
//! subprotocol after `Bearer`, or as a cookie. Called by `Gateway::serve`.

use super::Gateway;
use axum::body::Body as Incoming;
use axum::extract::FromRequestParts;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use bytes::Bytes;
use futures_util::stream;
use http::header::{AUTHORIZATION, CONNECTION, COOKIE, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use std::convert::Infallible;
use tokio::sync::mpsc;
use tonic::body::Body;

const BEARER: &str = "Bearer";
/// Name of the cookie with a token.
const COOKIE_NAME: &str = "token";

/// Whether a request asks for a websocket.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

/// Makes a websocket of the request's connection, and serves the call over it.
pub async fn serve(gateway: Gateway, request: Request<Incoming>) -> Response<Body> {
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(refused) => return axum::response::IntoResponse::into_response(refused).map(Body::new),
    };
    let bytes_max = gateway.text_bytes_max;
    let upgrade = upgrade.max_message_size(bytes_max).max_frame_size(bytes_max).protocols([BEARER]);
    let head = head(parts);
    upgrade.on_upgrade(move |socket| exchange(gateway, head, socket)).map(Body::new)
}

/// The head of the request that the call sees.
fn head(mut parts: Parts) -> Parts {
    let token = token(&parts.headers);
    parts.method = Method::POST;
    parts.headers = HeaderMap::new();
    if let Some(token) = token.and_then(|token| HeaderValue::try_from(format!("{BEARER} {token}")).ok()) {
        parts.headers.insert(AUTHORIZATION, token);
    }
    parts
}

fn token(headers: &HeaderMap) -> Option<String> {
    let values = |name| headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let cookie = values(COOKIE)
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, token)| token);
    let subprotocol = || {
        let value = values(SEC_WEBSOCKET_PROTOCOL).next()?;
        value.split_once("Bearer,").map(|(_, token)| token.trim_matches(' '))
    };
    cookie.or_else(subprotocol).map(str::to_owned)
}

/// Carries messages both ways until either side ends.
async fn exchange(gateway: Gateway, head: Parts, mut socket: WebSocket) {
    let (requests, received) = mpsc::channel::<Bytes>(1);
    let received = stream::unfold(received, |mut received| async {
        received.recv().await.map(|piece| (Ok::<_, Infallible>(piece), received))
    });
    let answer = gateway.answer(&head, Incoming::from_stream(received));
    let mut answer = std::pin::pin!(answer);
    let mut waiting: Option<Bytes> = None;
    let response = loop {
        tokio::select! {
            response = &mut answer => break response,
            piece = next_piece(&mut socket), if waiting.is_none() => match piece {
                Some(piece) => waiting = Some(piece),
                None => return,
            },
            room = requests.reserve(), if waiting.is_some() => match (room, waiting.take()) {
                (Ok(room), Some(piece)) => room.send(piece),
                _ => break answer.await,
            },
        }
    };
    let mut body = response.into_body();
    loop {
        tokio::select! {
            line = body.frame() => {
                let Some(Ok(frame)) = line else { break };
                let text = frame.into_data().ok().and_then(|line| String::from_utf8(line.into()).ok());
                let Some(text) = text else { break };
                if socket.send(Message::text(text.trim_end())).await.is_err() {
                    return;
                }
            }
            piece = next_piece(&mut socket), if waiting.is_none() => match piece {
                Some(piece) => waiting = Some(piece),
                None => return,
            },
            room = requests.reserve(), if waiting.is_some() => {
                // Without room the call takes no more requests, and what comes is dropped.
                if let (Ok(room), Some(piece)) = (room, waiting.take()) {
                    room.send(piece);
                }
            }
        }
    }
    // The client may be gone already.
    let _ = socket.send(Message::Close(None)).await;
}

/// The next part of the request's body; `None` when the client has ended.
async fn next_piece(socket: &mut WebSocket) -> Option<Bytes> {
    loop {
        match socket.recv().await? {
            Ok(Message::Text(text)) => return Some([text.as_bytes(), b"\n"].concat().into()),
            Ok(Message::Binary(bytes)) => return Some([&bytes[..], b"\n"].concat().into()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) | Err(_) => return None,
        }
    }
}
