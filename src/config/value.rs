//! Scalar values as Go's `flag`, `strconv` and `time` packages read them, because operators' unit files and scripts
//! were written against those. Pure; every function takes any text and never panics. Called by the flag table.

use std::fmt;
use std::time::Duration;

/// Why a text is no value; shown after `invalid value "x" for flag -y: `.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValueError(pub String);

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn syntax() -> ValueError {
    ValueError("parse error".into())
}

fn range() -> ValueError {
    ValueError("value out of range".into())
}

/// `strconv.ParseBool`.
pub fn boolean(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(syntax()),
    }
}

/// `strconv.ParseUint(text, 0, 64)`: decimal, 0x, 0o, 0b or a leading zero for octal; underscores between digits.
pub fn unsigned(text: &str) -> Result<u64, ValueError> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits, mut after_digit) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..], true),
        [b'0', b'o', ..] => (8, &lower[2..], true),
        [b'0', b'b', ..] => (2, &lower[2..], true),
        [b'0', _, ..] => (8, &lower[..], false),
        _ => (10, &lower[..], false),
    };
    let mut value: Option<u64> = Some(0);
    for c in digits.chars() {
        if c == '_' {
            if !after_digit {
                return Err(syntax());
            }
            after_digit = false;
            continue;
        }
        let digit = c.to_digit(radix).ok_or_else(syntax)?;
        value = value.and_then(|v| v.checked_mul(u64::from(radix))?.checked_add(u64::from(digit)));
        after_digit = true;
    }
    if digits.is_empty() || !after_digit {
        return Err(syntax());
    }
    value.ok_or_else(range)
}

/// The same with at most 32 bits.
pub fn unsigned32(text: &str) -> Result<u32, ValueError> {
    u32::try_from(unsigned(text)?).map_err(|_| range())
}

/// `strconv.ParseInt(text, 0, 64)`.
pub fn integer(text: &str) -> Result<i64, ValueError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = i128::from(unsigned(digits)?);
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| range())
}

/// `time.ParseDuration`. A negative one is zero, which to the flags means the same: off, or the default.
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    let nanos = nanoseconds(text).ok_or_else(syntax)?;
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// A duration of our own flags, which etcd does not have: `humantime` reads it (`5s`, `1min 30s`).
pub fn human_duration(text: &str) -> Result<Duration, ValueError> {
    humantime::parse_duration(text).map_err(|e| ValueError(e.to_string()))
}

/// A sequence of decimal numbers with units, such as `1h2.5m`; `None` if the text is anything else or does not fit.
pub(super) fn nanoseconds(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = take_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => take_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let unit = unit_nanos(&after[..end])?;
        rest = &after[end..];
        total += number(whole)?.checked_mul(unit)?;
        // Digits below 10^-18 of an hour are far below a nanosecond.
        let kept = &fraction[..fraction.len().min(18)];
        total += number(kept)? * unit / 10_i128.pow(kept.len() as u32);
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return None;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn take_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn number(digits: &str) -> Option<i128> {
    if digits.is_empty() { Some(0) } else { digits.parse::<u64>().ok().map(i128::from) }
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_read_with_go_prefixes() {
        for (text, value) in [
            ("0", 0),
            ("10000", 10_000),
            ("0x10", 16),
            ("0X_1f", 31),
            ("0b101", 5),
            ("0o17", 15),
            ("017", 15),
            ("1_000", 1000),
            ("+5", 5),
            ("-5", -5),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(integer(text), Ok(value), "{text}");
        }
        for text in ["", "-", "abc", "1.5", "1__0", "_1", "1_", "0x", "08", "0_8", " 1", "1e3", "--1"] {
            assert_eq!(integer(text), Err(syntax()), "{text}");
        }
        assert_eq!(integer("9223372036854775808"), Err(range()));
        assert_eq!(unsigned("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(unsigned("18446744073709551616"), Err(range()));
        assert_eq!(unsigned("-1"), Err(syntax()));
        assert_eq!(unsigned32("4294967296"), Err(range()));
    }

    #[test]
    fn durations_are_read_as_go_does() {
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100ms", 100_000_000),
            ("3us", 3_000),
            ("3\u{b5}s", 3_000),
            ("+7ns", 7),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "5", "s", ".s", "5 s", "1d", "5min", "1h-5m", "9223372036854775808ns", "9999999999h"]
        {
            assert_eq!(duration(text), Err(syntax()), "{text}");
        }
        assert_eq!(duration("-1s"), Ok(Duration::ZERO));
        assert_eq!(human_duration("1min 30s"), Ok(Duration::from_secs(90)));
        assert!(human_duration("5").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,24}", numeric in "[-+0-9_.xobhmnsu\u{b5}]{0,40}") {
            for text in [text, numeric] {
                let _ = (boolean(&text), unsigned(&text), integer(&text), duration(&text), human_duration(&text));
            }
        }

        #[test]
        fn whole_nanoseconds_survive(nanos in 0..=i64::MAX as u64) {
            prop_assert_eq!(duration(&format!("{nanos}ns")), Ok(Duration::from_nanos(nanos)));
        }
    }
}
