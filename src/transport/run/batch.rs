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

impl Slot {
    /// The event; `cut` gives the next so many bytes of the text.
    #[inline(always)]
    fn event<'a>(
        self,
        cold: &mut VecDeque<Box<Event>>,
        cut: impl FnOnce(usize) -> &'a str,
    ) -> Option<EventRef<'a>> {
        Some(match self {
            Self::Text(len) => EventRef::Text(cut(len as usize)),
            Self::Thinking(len) => EventRef::Thinking(cut(len as usize)),
            Self::Tokens(tokens) => EventRef::OutputTokens(tokens),
            Self::Cold => EventRef::Other(cold.pop_front()?),
        })
    }
}

/// Events in order. Text of all deltas is one string: a token costs no allocation.
#[derive(Default)]
pub(crate) struct Batch {
    text: String,
    slots: Vec<Slot>,
    cold: VecDeque<Box<Event>>,
    cold_weight: usize,
    /// How many of `slots` have been read, and how much of `text`.
    read: usize,
    read_text: usize,
}

impl Batch {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.read == self.slots.len()
    }

    #[inline]
    pub(crate) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.slots.len() >= limits.events || self.weight() >= limits.bytes
    }

    /// Bytes that the events take, roughly, those that were read included.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        self.text.len() + self.cold_weight + self.slots.len() * size_of::<Slot>()
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, event: EventRef<'_>) {
        let slot = match event {
            EventRef::Text(text) => Slot::Text(self.keep(text)),
            EventRef::Thinking(text) => Slot::Thinking(self.keep(text)),
            EventRef::OutputTokens(tokens) => Slot::Tokens(tokens),
            EventRef::Other(event) => self.keep_cold(event),
        };
        self.slots.push(slot);
    }

    #[cold]
    fn keep_cold(&mut self, event: Box<Event>) -> Slot {
        self.cold_weight += event.weight() + size_of::<Event>();
        self.cold.push_back(event);
        Slot::Cold
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
        let Self { text, slots, cold, read, read_text, .. } = self;
        let slot = *slots.get(*read)?;
        *read += 1;
        slot.event(cold, |len| {
            let start = *read_text;
            *read_text += len;
            text.get(start..*read_text).unwrap_or_default()
        })
    }

    /// Gives all events to `sink` and says how many they were, in one pass over the text. A sink
    /// that panics has had its event.
    #[inline]
    pub(crate) fn drain(&mut self, mut sink: impl FnMut(EventRef<'_>)) -> usize {
        let Self { text, slots, cold, read, read_text, .. } = self;
        let slots = slots.get(*read..).unwrap_or_default();
        let mut rest = text.get(*read_text..).unwrap_or_default();
        for slot in slots {
            *read += 1;
            let event = slot.event(cold, |len| {
                *read_text += len;
                let (text, after) = rest.split_at_checked(len).unwrap_or_default();
                rest = after;
                text
            });
            let Some(event) = event else { break };
            sink(event);
        }
        slots.len()
    }

    /// Moves the events of `newer`, of which none was read, behind these; `newer` is empty afterwards.
    fn append(&mut self, newer: &mut Self) {
        self.text.push_str(&newer.text);
        self.slots.append(&mut newer.slots);
        self.cold.append(&mut newer.cold);
        self.cold_weight += newer.cold_weight;
        newer.clear();
    }

    /// Forgets everything. What a burst had taken is given back by halves when the burst is over:
    /// while it goes on, batches are of any size, and each would grow again.
    pub(crate) fn clear(&mut self) {
        let (text, slots) = (self.text.len(), self.slots.len());
        self.text.clear();
        self.slots.clear();
        self.cold.clear();
        self.text.shrink_to(text.max(self.text.capacity() / 2).max(KEPT));
        let kept = KEPT / size_of::<Slot>();
        self.slots.shrink_to(slots.max(self.slots.capacity() / 2).max(kept));
        (self.cold_weight, self.read, self.read_text) = (0, 0, 0);
    }

    /// An empty batch with room for as much as this one holds, out of `spare`.
    fn another(&self, mut spare: Self) -> Self {
        spare.text.reserve(self.text.len());
        spare.slots.reserve(self.slots.len());
        spare
    }
}

/// Batches that wait for the consumer, in order. They are handed on as they are; only small ones are
/// put together, so that a consumer that is late finds few.
#[derive(Default)]
pub(crate) struct Waiting {
    /// Empty when nothing waits.
    first: Batch,
    more: VecDeque<Batch>,
    /// Of all of them.
    weight: usize,
    events: usize,
    /// An empty one, for its memory.
    spare: Batch,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Bytes that the events take, roughly; 0 when none waits.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    pub(crate) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.events >= limits.events || self.weight >= limits.bytes
    }

    /// Moves the events of `newer` behind all others; it is empty afterwards.
    pub(crate) fn push(&mut self, newer: &mut Batch) {
        if newer.is_empty() {
            return;
        }
        self.weight += newer.weight();
        self.events += newer.slots.len();
        if self.first.is_empty() {
            std::mem::swap(&mut self.first, newer);
            return;
        }
        let last = self.more.back_mut().unwrap_or(&mut self.first);
        if last.weight() + newer.weight() <= KEPT {
            last.append(newer);
        } else {
            // They come faster than they are taken: the next one will be of this size.
            let empty = newer.another(std::mem::take(&mut self.spare));
            self.more.push_back(std::mem::replace(newer, empty));
        }
    }

    /// Gives the first batch for `read`, which has been read to its end. There has to be one.
    pub(crate) fn swap(&mut self, read: &mut Batch) {
        self.weight -= self.first.weight();
        self.events -= self.first.slots.len();
        read.clear();
        std::mem::swap(&mut self.first, read);
        if let Some(next) = self.more.pop_front() {
            self.spare = std::mem::replace(&mut self.first, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Notice;

    fn drain(batch: &mut Batch) -> Vec<Event> {
        let mut events = Vec::new();
        let count = batch.drain(|event| events.push(event.to_event()));
        assert_eq!(count, events.len());
        events
    }

    fn events_in_order() -> Batch {
        let mut batch = Batch::default();
        batch.push(EventRef::Text("h\u{e9}"));
        batch.push(EventRef::Thinking("hm"));
        batch.push(EventRef::Other(Box::new(Event::Notice(Notice::Utf8Replaced))));
        batch.push(EventRef::OutputTokens(3));
        batch.push(EventRef::Text("llo"));
        batch
    }

    #[test]
    fn events_come_out_as_they_went_in() {
        let expected = [
            Event::Text("h\u{e9}".to_owned()),
            Event::Thinking("hm".to_owned()),
            Event::Notice(Notice::Utf8Replaced),
            Event::OutputTokens(3),
            Event::Text("llo".to_owned()),
        ];
        for one_by_one in 0..=expected.len() {
            let mut batch = events_in_order();
            let next = || batch.next().map(EventRef::to_event);
            let mut events: Vec<_> = std::iter::from_fn(next).take(one_by_one).collect();
            events.append(&mut drain(&mut batch));
            assert_eq!(events, expected);
            assert!(batch.is_empty() && batch.next().is_none());
        }
    }

    fn batch(texts: &[&str]) -> Batch {
        let mut batch = Batch::default();
        texts.iter().for_each(|text| batch.push(EventRef::Text(text)));
        batch
    }

    #[test]
    fn small_batches_are_taken_as_one_and_large_ones_one_by_one() {
        let mut waiting = Waiting::default();
        let large = "x".repeat(KEPT);
        let mut last = batch(&["d"]);
        last.push(EventRef::Other(Box::new(Event::Notice(Notice::Unrecognised))));
        for mut newer in [batch(&[]), batch(&["a", "b"]), batch(&["c"]), batch(&[&large]), last] {
            waiting.push(&mut newer);
            assert!(newer.is_empty());
        }
        let text = |text: &str| Event::Text(text.to_owned());
        let expected = [
            vec![text("a"), text("b"), text("c")],
            vec![text(&large)],
            vec![text("d"), Event::Notice(Notice::Unrecognised)],
        ];
        let mut read = Batch::default();
        for expected in expected {
            assert!(!waiting.is_empty() && waiting.weight() > 0);
            waiting.swap(&mut read);
            assert_eq!(drain(&mut read), expected);
        }
        assert!(waiting.is_empty());
        assert_eq!((waiting.weight(), waiting.events), (0, 0));
    }

    #[test]
    fn what_waits_is_full_by_bytes_or_by_count_of_all_batches() {
        let limits = BatchLimits { bytes: 3 * KEPT, events: 10 };
        let mut waiting = Waiting::default();
        let large = "x".repeat(KEPT);
        for _ in 0..3 {
            assert!(!waiting.is_full(&limits));
            waiting.push(&mut batch(&[&large]));
        }
        assert!(waiting.is_full(&limits));
        waiting.swap(&mut Batch::default());
        assert!(!waiting.is_full(&limits));
        waiting.push(&mut batch(&["x"; 8]));
        assert!(waiting.is_full(&limits));
    }

    #[test]
    fn the_memory_of_what_was_read_is_used_again() {
        let (mut waiting, mut filling, mut read) = <(Waiting, Batch, Batch)>::default();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..100 {
            for _ in 0..2 {
                (0..1_000).for_each(|_| filling.push(EventRef::Text("twenty bytes of text")));
                places.insert(filling.text.as_ptr());
                waiting.push(&mut filling);
            }
            while !waiting.is_empty() {
                waiting.swap(&mut read);
                assert_eq!(drain(&mut read).len(), 1_000);
            }
        }
        assert!(places.len() < 10, "{places:?}");
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
        for left in [512 << 10, 256 << 10, 128 << 10, 64 << 10, 32 << 10, KEPT, KEPT] {
            batch.push(EventRef::Text("the burst is over"));
            batch.clear();
            assert!(batch.is_empty());
            assert_eq!(batch.text.capacity(), left);
        }
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
