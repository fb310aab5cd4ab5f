//! Events on their way from a run's task to its consumer: packed, bounded, handed over at once.

use std::collections::VecDeque;

use crate::run::{Event, EventRef};

/// Capacity that an emptied batch keeps in any case, in bytes of text and of events: enough for a
/// lively model, little enough for a thousand runs.
const KEPT: usize = 16 << 10;

/// How much may wait for the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchLimits {
    /// Bytes, events and their text together.
    pub(crate) bytes: usize,
    /// Events.
    pub(crate) events: usize,
}

/// One event, where its content is elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// So many bytes of the text.
    Text(u32),
    /// So many bytes of the text.
    Thinking(u32),
    Tokens(u32),
    /// The next of the cold events.
    Cold,
}

/// Events in order. Text of all deltas is one string: a token costs no allocation.
#[derive(Default)]
pub(crate) struct Batch {
    text: String,
    slots: VecDeque<Slot>,
    cold: VecDeque<Box<Event>>,
    cold_weight: usize,
    /// How much of `text` has been read.
    read: usize,
    /// Events since the last time that everything was forgotten.
    pushed: usize,
}

impl Batch {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    #[inline]
    pub(crate) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.slots.len() >= limits.events || self.weight() >= limits.bytes
    }

    /// Bytes that the events hold, roughly.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        self.text.len() + self.cold_weight + self.slots.len() * size_of::<Slot>()
    }

    #[inline]
    pub(crate) fn push(&mut self, event: EventRef<'_>) {
        let slot = match event {
            EventRef::Text(text) => Slot::Text(self.keep(text)),
            EventRef::Thinking(text) => Slot::Thinking(self.keep(text)),
            EventRef::OutputTokens(tokens) => Slot::Tokens(tokens),
            EventRef::Other(event) => {
                self.cold_weight += event.weight() + size_of::<Event>();
                self.cold.push_back(event);
                Slot::Cold
            }
        };
        self.slots.push_back(slot);
        self.pushed += 1;
    }

    /// An envelope's length is 32 bits, so a delta's is.
    #[inline]
    fn keep(&mut self, text: &str) -> u32 {
        self.text.push_str(text);
        u32::try_from(text.len()).unwrap_or(u32::MAX)
    }

    /// Takes the first event out. The text it points to lives until the batch is cleared.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<EventRef<'_>> {
        Some(match self.slots.pop_front()? {
            Slot::Text(len) => EventRef::Text(self.read(len)),
            Slot::Thinking(len) => EventRef::Thinking(self.read(len)),
            Slot::Tokens(tokens) => EventRef::OutputTokens(tokens),
            Slot::Cold => EventRef::Other(self.cold.pop_front()?),
        })
    }

    #[inline]
    fn read(&mut self, len: u32) -> &str {
        let start = self.read;
        self.read = start.saturating_add(len as usize);
        self.text.get(start..self.read).unwrap_or_default()
    }

    /// Moves the events of `newer` behind these; `newer` is empty afterwards.
    pub(crate) fn append(&mut self, newer: &mut Self) {
        if self.is_empty() {
            self.clear();
            std::mem::swap(self, newer);
            return;
        }
        self.text.push_str(newer.text.get(newer.read..).unwrap_or_default());
        self.slots.append(&mut newer.slots);
        self.cold.append(&mut newer.cold);
        self.cold_weight += newer.cold_weight;
        self.pushed += newer.pushed;
        newer.clear();
    }

    /// Forgets everything. What a burst had taken is given back when the burst is over, one batch
    /// later: while it goes on, every batch would grow from nothing again.
    pub(crate) fn clear(&mut self) {
        let (text, slots) = (self.text.len(), std::mem::take(&mut self.pushed));
        self.text.clear();
        self.slots.clear();
        self.cold.clear();
        self.text.shrink_to(text.max(KEPT));
        self.slots.shrink_to(slots.max(KEPT / size_of::<Slot>()));
        self.cold_weight = 0;
        self.read = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Notice;

    fn drain(batch: &mut Batch) -> Vec<Event> {
        std::iter::from_fn(|| batch.next().map(EventRef::to_event)).collect()
    }

    #[test]
    fn events_come_out_as_they_went_in() {
        let mut batch = Batch::default();
        batch.push(EventRef::Text("h\u{e9}"));
        batch.push(EventRef::Thinking("hm"));
        batch.push(EventRef::Other(Box::new(Event::Notice(Notice::Utf8Replaced))));
        batch.push(EventRef::OutputTokens(3));
        batch.push(EventRef::Text("llo"));
        let expected = [
            Event::Text("h\u{e9}".to_owned()),
            Event::Thinking("hm".to_owned()),
            Event::Notice(Notice::Utf8Replaced),
            Event::OutputTokens(3),
            Event::Text("llo".to_owned()),
        ];
        assert_eq!(drain(&mut batch), expected);
        assert!(batch.is_empty());
    }

    #[test]
    fn batches_join_in_order_also_when_half_read() {
        let (mut older, mut newer) = (Batch::default(), Batch::default());
        older.push(EventRef::Text("a"));
        older.push(EventRef::Text("b"));
        assert!(matches!(older.next(), Some(EventRef::Text("a"))));
        newer.push(EventRef::Text("c"));
        newer.push(EventRef::Other(Box::new(Event::Notice(Notice::Unrecognised))));
        older.append(&mut newer);
        assert!(newer.is_empty());
        let expected = ["b", "c"].map(|text| Event::Text(text.to_owned()));
        let got = drain(&mut older);
        assert_eq!(got[..2], expected);
        assert_eq!(got[2], Event::Notice(Notice::Unrecognised));
    }

    #[test]
    fn a_batch_is_full_by_bytes_or_by_count_and_lets_go_of_what_it_took() {
        let limits = BatchLimits { bytes: 1_000, events: 10 };
        let mut batch = Batch::default();
        batch.push(EventRef::Text(&"x".repeat(1_000)));
        assert!(batch.is_full(&limits));
        batch.clear();
        for _ in 0..10 {
            assert!(!batch.is_full(&limits));
            batch.push(EventRef::OutputTokens(1));
        }
        assert!(batch.is_full(&limits));
        batch.push(EventRef::Text(&"x".repeat(1 << 20)));
        batch.clear();
        assert!(batch.is_empty());
        batch.push(EventRef::Text("the burst is over"));
        batch.clear();
        assert!(batch.text.capacity() <= KEPT && batch.is_empty());
    }

    #[test]
    fn a_burst_grows_a_batch_once() {
        let mut batch = Batch::default();
        let mut fill = || {
            (0..10_000).for_each(|_| batch.push(EventRef::Text("twenty bytes of text")));
            let held = (batch.text.capacity(), batch.slots.capacity());
            batch.clear();
            (held, (batch.text.capacity(), batch.slots.capacity()))
        };
        let (first, left) = fill();
        assert!(left.0 >= 200_000 && left.1 >= 10_000, "{first:?}, then {left:?}");
        assert_eq!(fill().0, left);
    }
}
