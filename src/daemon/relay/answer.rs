//! Answers to the programs of tasks: passed on in pieces, or refused in the
//! words of their dialect.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use crate::model::prompt::Dialect;

/// An answer.
pub(super) type Answer = Response<Either<Full<Bytes>, Pieces>>;

/// Pieces of an answer, as they come.
#[derive(Debug)]
pub(super) struct Pieces(Receiver<Result<Bytes, BrokeOff>>);

/// The provider broke its answer off.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the provider broke its answer off")]
pub(super) struct BrokeOff;

impl Body for Pieces {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let piece = ready!(self.0.poll_recv(context));
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }
}

/// An answer whose pieces come from here.
pub(super) fn piecewise(pieces: Receiver<Result<Bytes, BrokeOff>>) -> Answer {
    Response::new(Either::Right(Pieces(pieces)))
}

/// The words of a dialect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words(pub(super) Dialect);

impl Words {
    /// Those of whoever asks at this path.
    pub(super) fn of(path: &str) -> Self {
        if path.starts_with("/anthropic") {
            Self(Dialect::Anthropic)
        } else {
            Self(Dialect::OpenAi)
        }
    }

    /// An error that the libraries of the vendors understand.
    pub(super) fn refuse(self, status: StatusCode, told: &str) -> Answer {
        let kind = match status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::PAYMENT_REQUIRED if self.0 != Dialect::Anthropic => "insufficient_quota",
            StatusCode::PAYMENT_REQUIRED => "billing_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "api_error",
        };
        let body = match self.0 {
            Dialect::OpenAi | Dialect::Responses => {
                let code = (status == StatusCode::PAYMENT_REQUIRED).then_some(kind);
                json!({"error": {"message": told, "type": kind, "param": null, "code": code}})
            }
            Dialect::Anthropic => {
                json!({"type": "error", "error": {"type": kind, "message": told}})
            }
        };
        let body = Full::new(Bytes::from(body.to_string()));
        let mut answer = Response::new(Either::Left(body));
        *answer.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(CONTENT_TYPE, json);
        answer
    }
}
