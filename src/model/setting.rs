//! A setting as it is declared: name, meaning, default, once.
//!
//! Each room declares its `Options` with [`settings!`]. Out of the one list
//! come the struct, its default, and [`Setting`]s, from which `config` checks
//! keys, prints the commented default file and tells what a reload changed.
//! Reading files and judging values is not done here.

/// What is known of one key besides its value.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key, as written in the configuration file.
    pub key: &'static str,
    /// Its documentation, one line each, as written in the source.
    pub doc: &'static [&'static str],
    /// What the key holds.
    pub kind: Kind,
    /// For the default file, where the default is to leave the key out.
    pub example: Option<&'static str>,
}

/// What a key holds, and when a new value counts.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A value that a reload puts into effect.
    Live,
    /// A value that is read once, at start.
    Restart,
    /// A table of settings.
    Section(&'static [Setting]),
}

/// Declares a struct of settings: documentation, name, type, default and
/// [`Kind`] of each. An attribute for serde may stand before the name, an
/// example at the end.
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        pub struct $Name:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($serde:tt)*)])?
                $field:ident: $Type:ty = $default:expr, $kind:expr $(, $example:literal)?;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $Name {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                pub $field: $Type,
            )*
        }

        impl $Name {
            /// Every setting, in the order of the default file.
            pub const SETTINGS: &'static [$crate::model::setting::Setting] = &[
                $($crate::model::setting::Setting {
                    key: stringify!($field),
                    doc: &[$($doc),*],
                    kind: $kind,
                    example: [$($example,)?].first().copied(),
                }),*
            ];
        }

        impl Default for $Name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }
    };
}

pub(crate) use settings;
