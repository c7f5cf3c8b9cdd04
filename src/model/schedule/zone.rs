//! Time zones by name, from the copy of the IANA database inside the program.
//!
//! The copy is always the one used, also where the system has its own: a
//! schedule then means the same on each host of one version, works on a host
//! without the `tzdata` package, and nothing here reads a file.

use std::fmt;
use std::str::FromStr;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bad::BadZone;

/// Longest piece of a name repeated in a message.
const QUOTED: usize = 40;

/// A time zone of the bundled IANA database, as text its exact name.
///
/// Old names that the database still has, such as `EST5EDT`, are names like
/// any other. Offsets (`UTC+2`), rules and paths are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Universal time.
    #[must_use]
    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// Every name of the database, in order.
    #[must_use]
    pub fn names() -> Vec<String> {
        let database = TimeZoneDatabase::bundled();
        let names = database.available().map(|name| name.to_string());
        names.filter(|name| name != "Etc/Unknown").collect()
    }

    /// The rules of the zone.
    pub(super) const fn rules(&self) -> &TimeZone {
        &self.0
    }
}

impl FromStr for Zone {
    type Err = BadZone;

    fn from_str(name: &str) -> Result<Self, BadZone> {
        let found = TimeZoneDatabase::bundled()
            .get(name)
            .ok()
            .filter(|zone| !zone.is_unknown());
        let own = found.as_ref().and_then(TimeZone::iana_name);
        let hint = match (own, found.clone()) {
            (Some(own), Some(zone)) if own == name => return Ok(Self(zone)),
            (Some(own), _) => format!(" (here `{own}`: the case counts)"),
            (None, _) => String::new(),
        };
        let quoted = name.chars().take(QUOTED).flat_map(char::escape_debug);
        Err(BadZone {
            name: quoted.collect(),
            hint,
        })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}
