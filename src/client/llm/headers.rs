//! What the headers of a provider's answer say of its limits: how long it asks
//! to wait, and what is left.

use std::time::Duration;

use hyper::header::HeaderMap;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::clock;
use crate::model::limit::Dimension;
use crate::model::receipt::Remains;

/// Which header says what is left of which limit, in either dialect.
const REMAINS: [(&str, Dimension); 6] = [
    ("x-ratelimit-remaining-requests", Dimension::Requests),
    ("x-ratelimit-remaining-tokens", Dimension::Tokens),
    (
        "anthropic-ratelimit-requests-remaining",
        Dimension::Requests,
    ),
    ("anthropic-ratelimit-tokens-remaining", Dimension::Tokens),
    (
        "anthropic-ratelimit-input-tokens-remaining",
        Dimension::InputTokens,
    ),
    (
        "anthropic-ratelimit-output-tokens-remaining",
        Dimension::OutputTokens,
    ),
];

/// What is left of the limits that the headers name.
pub(super) fn remains(headers: &HeaderMap) -> Vec<Remains> {
    let left = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
    let all = REMAINS.into_iter();
    let all = all.filter_map(|(name, dimension)| {
        let left = left(name)?;
        Some(Remains { dimension, left })
    });
    all.collect()
}

/// The wait that the headers of a refusal ask for: in milliseconds where they
/// say so, in seconds, or until a date.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
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
        wait(&headers)
    }

    #[test]
    fn what_is_left_is_read_in_either_dialect() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-ratelimit-remaining-tokens", "39900"),
            ("x-ratelimit-remaining-requests", "many"),
            ("anthropic-ratelimit-output-tokens-remaining", "8000"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let expected = [
            (Dimension::Tokens, 39_900),
            (Dimension::OutputTokens, 8_000),
        ]
        .map(|(dimension, left)| Remains { dimension, left });
        assert_eq!(remains(&headers), expected);
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
