//! `connect-timeout-ms`: how long the caller will wait.

use std::time::Duration;

use crate::{Error, Result};

/// The header's name.
pub const HEADER: &str = "connect-timeout-ms";
/// Ten digits, as the Connect protocol has it: 115 days.
const MAX: u64 = 9_999_999_999;

/// The value for `timeout`: milliseconds, rounded up, so that no wait becomes none by rounding.
pub fn format(timeout: Duration) -> String {
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(MAX).min(MAX).to_string()
}

/// Reads the value.
///
/// # Errors
/// `invalid_argument` when it is not one to ten digits.
pub fn parse(value: &str) -> Result<Duration> {
    let digits =
        !value.is_empty() && value.len() <= 10 && value.bytes().all(|b| b.is_ascii_digit());
    match value.parse::<u64>() {
        Ok(millis) if digits => Ok(Duration::from_millis(millis)),
        _ => Err(Error::invalid("the header connect-timeout-ms is not a number of milliseconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_header() {
        let cases = [("0", 0), ("1", 1), ("0200", 200), ("9999999999", MAX)];
        for (text, millis) in cases {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis));
        }
        for bad in ["", "-1", "+1", "1.5", "10000000000", "1s", " 1", "٣"] {
            assert_eq!(parse(bad).unwrap_err().code(), crate::connect::Code::InvalidArgument);
        }
        assert_eq!(format(Duration::from_micros(1500)), "2");
        assert_eq!(format(Duration::from_secs(2)), "2000");
        assert_eq!(format(Duration::MAX), "9999999999");
    }
}
