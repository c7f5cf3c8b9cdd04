//! Until when a certificate is good, read out of its DER (RFC 5280, 4.1).

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::model::time::Time;

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
/// Two digits of the year.
const UTC_TIME: u8 = 0x17;
/// Four digits of the year.
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity; none where it does not say so.
pub(super) fn of(certificate: &[u8]) -> Option<Time> {
    let (inside, _) = take(certificate, SEQUENCE)?;
    let (signed, _) = take(inside, SEQUENCE)?;
    let rest = take(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_serial, rest) = take(rest, INTEGER)?;
    let (_algorithm, rest) = take(rest, SEQUENCE)?;
    let (_issuer, rest) = take(rest, SEQUENCE)?;
    let (validity, _) = take(rest, SEQUENCE)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    let text = std::str::from_utf8(text).ok()?;
    match tag {
        // The century is a rule of the standard.
        UTC_TIME if text.get(..2)? < "50" => moment(&format!("20{text}")),
        UTC_TIME => moment(&format!("19{text}")),
        GENERALIZED_TIME => moment(text),
        _ => None,
    }
}

/// The time that `YYYYMMDDHHMMSSZ` names.
fn moment(text: &str) -> Option<Time> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.len() == 14)?;
    let year = digits.get(..4)?.parse().ok()?;
    let part = |at: usize| digits.get(at..at + 2)?.parse::<i8>().ok();
    let civil = DateTime::new(year, part(4)?, part(6)?, part(8)?, part(10)?, part(12)?, 0);
    let zoned = civil.ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(Time::from_micros(zoned.timestamp().as_microsecond()))
}

/// The inside of an element of this kind, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, inside, rest) = element(bytes)?;
    (found == tag).then_some((inside, rest))
}

/// The first element: its kind, its inside, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first & 0x7f {
        short if first & 0x80 == 0 => (usize::from(short), rest),
        count => {
            let (digits, rest) = rest.split_at_checked(usize::from(count))?;
            let length = digits.iter().try_fold(0_usize, |length, digit| {
                length.checked_mul(256)?.checked_add(usize::from(*digit))
            });
            (length?, rest)
        }
    };
    let (inside, rest) = rest.split_at_checked(length)?;
    Some((*tag, inside, rest))
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read_and_nonsense_says_nothing() {
        let pem = include_bytes!("../../tests/it/tls/server.pem");
        let certificate = CertificateDer::from_pem_slice(pem).unwrap();
        // As `openssl x509 -enddate` says it.
        let end = "2120-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap();
        let told = of(&certificate).unwrap();
        assert_eq!(told.micros(), end.as_microsecond());
        for cut in 0..certificate.len() {
            // It ends somewhere in the middle: no panic, and no other time.
            let part = of(&certificate[..cut]);
            assert!(part.is_none(), "{cut}: {part:?}");
        }
        assert_eq!(of(&[0x30, 0xff]), None);
        assert_eq!(
            moment("20500101000000Z").map(Time::micros),
            Some(2_524_608_000_000_000)
        );
        assert_eq!(moment("20501301000000Z"), None);
    }
}
