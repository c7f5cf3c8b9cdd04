//! A badge: how a task's processes show which attempt they belong to, where
//! nothing else says so.
//!
//! It is made of the attempt's number and a secret of this host, so none has to
//! be kept; it is good as long as the attempt runs.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::attempt::AttemptKey;
use super::id::TaskId;

/// What every badge begins with.
const PREFIX: &str = "td-";
/// Bytes of the proof.
const PROOF: usize = 16;

/// What badges are made with. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Stamp([u8; 32]);

impl Stamp {
    /// The stamp of these bytes, which nobody can guess.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// The badge of an attempt.
    #[must_use]
    pub fn badge(&self, key: AttemptKey) -> String {
        format!("{PREFIX}{key}-{}", self.proof(key))
    }

    /// Whose badge this is; none of one that was not made here.
    #[must_use]
    pub fn read(&self, badge: &str) -> Option<AttemptKey> {
        let (key, proof) = badge.strip_prefix(PREFIX)?.split_once('-')?;
        let (task, number) = key.split_once('.')?;
        let key = AttemptKey {
            task: TaskId(task.parse().ok()?),
            number: number.parse().ok()?,
        };
        let mine = self.proof(key);
        // In the same time whatever differs.
        let differ = mine
            .bytes()
            .zip(proof.bytes())
            .fold(0, |all, (a, b)| all | (a ^ b));
        (mine.len() == proof.len() && differ == 0).then_some(key)
    }

    fn proof(&self, key: AttemptKey) -> String {
        // A key of any length is one: there is no other error.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return String::new();
        };
        mac.update(key.to_string().as_bytes());
        let sum = mac.finalize().into_bytes();
        sum.iter()
            .take(PROOF)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stamp(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badge_is_read_by_who_made_it_and_by_nobody_else() {
        let (ours, theirs) = (Stamp::new([1; 32]), Stamp::new([2; 32]));
        let key = AttemptKey {
            task: TaskId(12),
            number: 3,
        };
        let badge = ours.badge(key);
        assert!(badge.starts_with("td-12.3-"), "{badge}");
        assert_eq!(ours.read(&badge), Some(key));
        assert_eq!(theirs.read(&badge), None);
        let other = badge.replace("12.3", "12.4");
        for bad in [
            "",
            "td-",
            "td-12.3-",
            "td-12.3",
            &other,
            &badge[..badge.len() - 1],
        ] {
            assert_eq!(ours.read(bad), None, "{bad}");
        }
        assert_eq!(format!("{ours:?}"), "Stamp(…)");
    }
}
