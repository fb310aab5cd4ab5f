//! Where fresh ids come from: an argument of the pure core, never a call into the system.

use uuid::Uuid;

/// A source of fresh UUIDs (message ids, image ids, ids of tool calls that came without one).
pub trait IdSource: Send {
    /// The next id; no two calls on one source give the same.
    fn next_id(&mut self) -> Uuid;
}

/// Ids that count from 1, for vectors and transcripts: `00000000-0000-4000-8000-` and twelve digits.
#[derive(Debug, Clone)]
pub struct CountingIds {
    next: u64,
    decimal: bool,
}

impl CountingIds {
    /// Counts in hexadecimal, as the vectors do.
    pub fn hex() -> Self {
        Self { next: 1, decimal: false }
    }

    /// Counts in decimal digits, as `reference-golden.json` does.
    pub fn decimal() -> Self {
        Self { next: 1, decimal: true }
    }
}

impl IdSource for CountingIds {
    fn next_id(&mut self) -> Uuid {
        let digits = if self.decimal { decimal_as_hex(self.next) } else { self.next };
        self.next += 1;
        Uuid::from_fields(0, 0, 0x4000, &tail(digits))
    }
}

/// The last eight bytes of a counting id: the variant, then the count in six bytes.
fn tail(count: u64) -> [u8; 8] {
    let [_, _, count @ ..] = count.to_be_bytes();
    let [a, b, c, d, e, f] = count;
    [0x80, 0, a, b, c, d, e, f]
}

/// The number whose hexadecimal digits are the decimal digits of `n`.
fn decimal_as_hex(mut n: u64) -> u64 {
    let (mut out, mut shift) = (0, 0);
    while n > 0 && shift < 48 {
        out |= (n % 10) << shift;
        n /= 10;
        shift += 4;
    }
    out
}

/// Ids drawn at random by the operating system (UUID version 4): what drivers use.
#[cfg(feature = "net")]
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

#[cfg(feature = "net")]
impl IdSource for RandomIds {
    #[allow(clippy::disallowed_methods, reason = "the driver's own source, handed to the core")]
    fn next_id(&mut self) -> Uuid {
        Uuid::new_v4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_hex_and_in_decimal() {
        let mut hex = CountingIds::hex();
        let mut decimal = CountingIds::decimal();
        let last = |ids: &mut CountingIds| (0..10).map(|_| ids.next_id().to_string()).last();
        assert_eq!(last(&mut hex).as_deref(), Some("00000000-0000-4000-8000-00000000000a"));
        assert_eq!(last(&mut decimal).as_deref(), Some("00000000-0000-4000-8000-000000000010"));
    }
}
