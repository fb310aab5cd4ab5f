//! Token accounting of one run (PROTOCOL 3 "Usage", BEHAVIOUR 11).

use serde::{Deserialize, Serialize};

/// Tokens of one turn. `None` means that the service did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Input tokens, those read from the cache included.
    pub input: Option<u64>,
    /// Output tokens.
    pub output: u64,
    /// Input tokens that came from the provider's cache.
    pub cache_read: Option<u64>,
    /// Input tokens that were written to the provider's cache.
    pub cache_write: Option<u64>,
    /// Output tokens that were reasoning.
    pub reasoning: Option<u64>,
    /// Tokens of the live context at the last checkpoint. Not a bill.
    pub context_used: Option<u64>,
    /// Size of the context window at the last checkpoint.
    pub context_limit: Option<u64>,
    /// Whether input and output are the split that the service bills (from `turn_ended`); when
    /// false they are derived from token deltas and the last checkpoint.
    pub billed: bool,
}

/// A cache-read figure above this many times the context is not believable and is left out
/// (PROTOCOL 3).
const CACHE_READ_BELIEVABLE: u64 = 3;

impl Usage {
    /// Output tokens as they come. Negative deltas are ignored: they would lower the count below
    /// what was already reported (BEHAVIOUR H52).
    pub(crate) fn add_output(&mut self, tokens: i32) -> u32 {
        let tokens = u32::try_from(tokens).unwrap_or(0);
        self.output = self.output.saturating_add(u64::from(tokens));
        tokens
    }

    pub(crate) fn checkpoint(&mut self, used: Option<u32>, limit: Option<u32>) {
        if let Some(used) = used {
            self.context_used = Some(u64::from(used));
        }
        if let Some(limit) = limit {
            self.context_limit = Some(u64::from(limit));
        }
        self.derive_input();
    }

    /// The split of `turn_ended`: input, output, cache read, cache write, reasoning.
    pub(crate) fn turn_ended(&mut self, split: [Option<i64>; 5]) {
        let [input, output, cache_read, cache_write, reasoning] =
            split.map(|tokens| tokens.and_then(|tokens| u64::try_from(tokens).ok()));
        self.cache_read = cache_read.filter(|&read| self.believable(read));
        self.cache_write = cache_write;
        self.reasoning = reasoning;
        if input.is_some() || output.is_some() {
            self.billed = true;
            self.output = output.unwrap_or(self.output);
        }
        match input {
            Some(input) => self.input = Some(input),
            None => self.derive_input(),
        }
    }

    fn believable(&self, read: u64) -> bool {
        self.context_used.is_none_or(|used| read <= used.saturating_mul(CACHE_READ_BELIEVABLE))
    }

    /// Without a bill: input = what the context holds, less what came out of this turn.
    fn derive_input(&mut self) {
        if self.billed {
            return;
        }
        let cache = self.cache_read.unwrap_or(0).saturating_add(self.cache_write.unwrap_or(0));
        self.input =
            self.context_used.map(|used| used.saturating_sub(self.output).saturating_sub(cache));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_and_checkpoints_give_an_estimate() {
        let mut usage = Usage::default();
        usage.add_output(30);
        usage.checkpoint(Some(100), None);
        assert_eq!((usage.input, usage.output, usage.billed), (Some(70), 30, false));
        usage.add_output(5);
        usage.checkpoint(Some(20), Some(2_000));
        assert_eq!((usage.input, usage.output), (Some(0), 35));
        assert_eq!(usage.add_output(-10), 0);
        assert_eq!((usage.output, usage.context_limit), (35, Some(2_000)));
    }

    #[test]
    fn turn_ended_is_the_bill_and_an_unbelievable_cache_is_left_out() {
        let mut usage = Usage::default();
        usage.add_output(3);
        usage.checkpoint(Some(100), None);
        usage.turn_ended([Some(90), Some(12), Some(301), Some(4), Some(2)]);
        assert_eq!((usage.input, usage.output, usage.billed), (Some(90), 12, true));
        assert_eq!(
            (usage.cache_read, usage.cache_write, usage.reasoning),
            (None, Some(4), Some(2))
        );
        usage.turn_ended([Some(90), Some(12), Some(300), None, None]);
        assert_eq!(usage.cache_read, Some(300));
    }

    #[test]
    fn turn_ended_without_numbers_keeps_the_estimate() {
        let mut usage = Usage::default();
        usage.add_output(8);
        usage.checkpoint(Some(20), None);
        usage.turn_ended([None; 5]);
        assert_eq!((usage.input, usage.output, usage.billed), (Some(12), 8, false));
    }
}
