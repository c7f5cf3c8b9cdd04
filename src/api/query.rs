//! The part of an address behind `?`: every name known, none twice, every
//! value in range, all as literal text.

use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;

use crate::model::id::TaskId;
use crate::model::quantity::parse_duration;

use super::json::nearest;
use super::problem::Problem;

/// The extractor for handlers with parameters.
pub(super) type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// Parameters that were sent and not taken yet.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Checks the names.
    pub(super) fn new(pairs: Pairs, known: &[&'static str]) -> Result<Self, Problem> {
        let Query(pairs) = pairs.map_err(|_| {
            Problem::bad(
                "bad_query",
                "the part of the address behind `?` is malformed",
            )
        })?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            let shown: String = name.chars().take(40).collect();
            let shown = shown.escape_debug();
            if !known.contains(&name.as_str()) {
                let near = nearest(name, known.iter().copied());
                let hint = near.map_or_else(
                    || format!("the parameters here are: {}", known.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                let detail = format!("unknown parameter `{shown}`: {hint}");
                return Err(Problem::bad("unknown_parameter", detail));
            }
            if pairs.iter().skip(index + 1).any(|(other, _)| other == name) {
                let detail = format!("parameter `{shown}` is there twice");
                return Err(Problem::bad("duplicate_parameter", detail));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(index).1)
    }

    /// A number within bounds.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> Result<Option<u32>, Problem> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        whole(&text)
            .filter(|number| bounds.contains(number))
            .map(Some)
            .ok_or_else(|| {
                let (low, high) = (bounds.start(), bounds.end());
                Problem::invalid(name, format!("must be a number from {low} to {high}"))
            })
    }

    /// The number of an event, or 0 for before the first.
    pub(super) fn sequence(&mut self, name: &'static str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        sequence(&text)
            .map(Some)
            .ok_or_else(|| Problem::invalid(name, "must be the number of an event, or 0"))
    }

    /// A duration with its unit.
    pub(super) fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, Problem> {
        self.take(name)
            .map(|text| {
                parse_duration(&text).map_err(|error| Problem::invalid(name, error.to_string()))
            })
            .transpose()
    }

    /// `true` or `false`.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<bool, Problem> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::invalid(name, "must be `true` or `false`")),
        }
    }
}

/// Digits without sign, spaces or leading zeros.
fn whole<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// The number of an event, or 0.
pub(super) fn sequence(text: &str) -> Option<i64> {
    whole(text).filter(|seq| *seq >= 0)
}

/// The task a path names.
pub(super) fn task_id(text: &str) -> Result<TaskId, Problem> {
    whole(text).filter(|id| *id > 0).map(TaskId).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        let detail = format!("`{}` is not a task number", shown.escape_debug());
        Problem::bad("bad_id", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_positive_numbers_are_ids() {
        assert_eq!(task_id("7").unwrap(), TaskId(7));
        assert_eq!(task_id("9223372036854775807").unwrap(), TaskId(i64::MAX));
        let long = "9".repeat(1024);
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            "007",
            "1e3",
            "9223372036854775808",
            "..",
            "1 ",
            "🦀",
            &long,
        ] {
            assert_eq!(task_id(bad).unwrap_err().code, "bad_id", "{bad}");
        }
    }

    #[test]
    fn parameters_are_checked_by_name_and_range() {
        let params = |text: &str| {
            let pairs = text
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            Params::new(Ok(Query(pairs)), &["limit", "state"])
        };
        assert_eq!(params("limt=1").unwrap_err().code, "unknown_parameter");
        assert!(params("limt=1").unwrap_err().detail.contains("`limit`"));
        assert_eq!(
            params("limit=1&limit=1").unwrap_err().code,
            "duplicate_parameter"
        );
        for bad in ["0", "-1", "1001", "1000000000", "x", "", "1.5"] {
            let mut params = params(&format!("limit={bad}")).unwrap();
            assert!(params.number("limit", 1..=1000).is_err(), "{bad}");
        }
        assert_eq!(
            params("limit=1000")
                .unwrap()
                .number("limit", 1..=1000)
                .unwrap(),
            Some(1000)
        );
    }
}
