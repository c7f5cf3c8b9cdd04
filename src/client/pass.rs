//! Requests of others, passed on to a daemon as they are and as ours: what the
//! loopback address of `taskdaemon web` does.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RANGE};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL};
use hyper::{Method, Request, Response};

use super::target::Target;
use super::{Client, Error};

/// Headers that are passed on. Whatever says who asks is not among them: that
/// is us.
const PASSED: [HeaderName; 5] = [
    ACCEPT,
    CACHE_CONTROL,
    CONTENT_TYPE,
    RANGE,
    HeaderName::from_static("last-event-id"),
];

impl Client {
    /// Passes a request on. Whatever is answered is an answer; it ends with its
    /// body.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn pass(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|_| Error::Usage(format!("`{path}` is not an address")))?;
        let own = request.headers_mut();
        for name in PASSED {
            if let Some(value) = headers.get(&name) {
                own.insert(name, value.clone());
            }
        }
        let host = match &self.target {
            Target::Unix(_) => "localhost",
            Target::Tcp { address, token, .. } => {
                if let Some(token) = token {
                    own.insert(AUTHORIZATION, token.header()?);
                }
                address
            }
        };
        own.insert(HOST, HeaderValue::try_from(host).map_err(|_| Error::Lost)?);
        self.exchange(request).await
    }
}
