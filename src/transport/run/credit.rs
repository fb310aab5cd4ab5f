//! The window of a run's stream: when bytes go back to the peer, and when no more are read. The rule,
//! without socket or queue.
//!
//! ```text
//!          came            decoded              published, taken       due
//!  socket ──────▶ in turn ─────────▶ in batch ───────────────▶ owed ──────▶ peer's window
//! ```
//!
//! Bytes go back when the consumer has taken what they became, or when they became nothing. While
//! more events wait than may, the turn does not decode; then one more portion is read, so that the
//! turn knows that it is not the service that is silent, and nothing after it.

/// Bytes of a body that have not been given back to the peer's window.
#[derive(Debug)]
pub(super) struct Credit {
    /// Bytes that are worth an update of the window.
    due: usize,
    /// In the turn, perhaps not decoded.
    in_turn: usize,
    /// Decoded, with events that the consumer has not taken.
    in_batch: usize,
    /// Done with, until it is worth an update of the window.
    owed: usize,
    /// The turn stopped before it had decoded everything.
    stopped: bool,
    /// Something was read after that.
    held: bool,
}

impl Credit {
    pub(super) fn new(due: usize) -> Self {
        Self { due, in_turn: 0, in_batch: 0, owed: 0, stopped: false, held: false }
    }

    /// Whether the body may be read.
    pub(super) fn may_read(&self) -> bool {
        !self.held
    }

    /// Whether the turn has something that it did not decode.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// So many bytes were read into the turn.
    pub(super) fn came(&mut self, bytes: usize) {
        self.in_turn += bytes;
        self.held = self.stopped && bytes > 0;
    }

    /// The turn has decoded all that it has, or stopped before.
    pub(super) fn decoded(&mut self, all: bool) {
        self.stopped = !all;
        self.held &= self.stopped;
    }

    /// The events of what was decoded are with the consumer's, who had taken all before if
    /// `was_taken`; those that wait for it weigh `weight` bytes. True when so much waits that it
    /// has to be known when it is taken: then [`Self::taken`] is to be called.
    pub(super) fn published(&mut self, was_taken: bool, weight: usize) -> bool {
        if was_taken {
            self.taken();
        }
        if !self.stopped {
            self.in_batch += std::mem::take(&mut self.in_turn);
        }
        // What weighs less than it came as came to less: that much waits for nobody.
        let waiting = self.in_batch.min(weight);
        self.owed += std::mem::replace(&mut self.in_batch, waiting) - waiting;
        waiting >= self.due
    }

    /// The consumer has taken everything that was published.
    pub(super) fn taken(&mut self) {
        self.owed += std::mem::take(&mut self.in_batch);
    }

    /// What to give back now, if it is worth it.
    pub(super) fn to_release(&self) -> Option<usize> {
        (self.owed >= self.due).then_some(self.owed)
    }

    /// It was given back.
    pub(super) fn released(&mut self) {
        self.owed = 0;
    }

    /// What comes from here on comes on another stream, with a window of its own.
    pub(super) fn next_stream(&mut self) {
        *self = Self { stopped: self.stopped, ..Self::new(self.due) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is given back to the window now.
    fn release(credit: &mut Credit) -> usize {
        let bytes = credit.to_release().unwrap_or_default();
        if bytes > 0 {
            credit.released();
        }
        bytes
    }

    #[test]
    fn bytes_go_back_when_their_events_are_taken_and_many_at_a_time() {
        let mut credit = Credit::new(100);
        credit.came(60);
        credit.decoded(true);
        assert!(!credit.published(true, 60));
        assert_eq!(release(&mut credit), 0);
        credit.came(70);
        credit.decoded(true);
        // The consumer has the first 60; they are not worth an update.
        assert!(!credit.published(true, 70));
        assert_eq!(release(&mut credit), 0);
        credit.came(10);
        credit.decoded(true);
        assert!(!credit.published(true, 10));
        assert_eq!(release(&mut credit), 130);
    }

    #[test]
    fn a_consumer_that_sleeps_holds_back_what_its_events_weigh() {
        let mut credit = Credit::new(100);
        credit.came(500);
        credit.decoded(true);
        // Headers and heartbeats: 380 of 500 bytes became nothing.
        assert!(credit.published(true, 120), "enough waits to be told when it is taken");
        assert_eq!(release(&mut credit), 380);
        assert_eq!(release(&mut credit), 0);
        credit.taken();
        assert_eq!(release(&mut credit), 120);
    }

    #[test]
    fn bytes_that_were_not_decoded_stay() {
        let mut credit = Credit::new(10);
        credit.came(50);
        credit.decoded(false);
        assert!(credit.is_stopped());
        assert!(!credit.published(true, 0));
        assert_eq!(release(&mut credit), 0);
        credit.decoded(true);
        credit.published(true, 0);
        assert_eq!(release(&mut credit), 50);
    }

    #[test]
    fn after_a_stop_one_portion_is_read_and_no_more_until_the_turn_goes_on() {
        let mut credit = Credit::new(10);
        credit.decoded(false);
        credit.came(0);
        assert!(credit.may_read(), "nothing came: the turn does not know that something waits");
        credit.came(5);
        assert!(!credit.may_read());
        credit.decoded(false);
        assert!(!credit.may_read());
        credit.decoded(true);
        assert!(credit.may_read());
    }

    #[test]
    fn another_stream_begins_with_nothing_owed() {
        let mut credit = Credit::new(10);
        credit.came(50);
        credit.decoded(false);
        credit.came(50);
        credit.next_stream();
        assert!(credit.may_read() && credit.is_stopped());
        credit.decoded(true);
        credit.published(true, 0);
        assert_eq!(release(&mut credit), 0);
    }
}
