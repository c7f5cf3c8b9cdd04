//! How long a provider asks to wait.

use std::time::Duration;

use hyper::header::HeaderMap;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::clock;

/// The wait that the headers of a refusal ask for: in milliseconds where they
/// say so, in seconds, or until a date.
pub(super) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let number = |name: &str| {
        let number: f64 = text(name)?.trim().parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number)
    };
    if let Some(millis) = number("retry-after-ms") {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    if let Some(seconds) = number("retry-after") {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let until = date.parse_timestamp(text("retry-after")?.trim()).ok()?;
    let now = Timestamp::from_microsecond(clock::now().micros()).ok()?;
    Duration::try_from(until.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn of(pairs: &[(&'static str, &str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_str(value).expect("value");
            headers.insert(HeaderName::from_static(name), value);
        }
        asked(&headers)
    }

    #[test]
    fn seconds_milliseconds_and_dates() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("retry-after", "3")]), Some(Duration::from_secs(3)));
        assert_eq!(
            of(&[("retry-after", "0.5")]),
            Some(Duration::from_millis(500))
        );
        let both = [("retry-after", "9"), ("retry-after-ms", "250")];
        assert_eq!(of(&both), Some(Duration::from_millis(250)));
        assert_eq!(of(&[("retry-after", "-1")]), None);
        assert_eq!(of(&[("retry-after", "soon")]), None);
        // A date that has passed asks for nothing.
        assert_eq!(
            of(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]),
            None
        );
        let later = of(&[("retry-after", "Wed, 21 Oct 2095 07:28:00 GMT")]);
        assert!(later.is_some_and(|wait| wait > Duration::from_secs(1_000_000_000)));
    }
}
