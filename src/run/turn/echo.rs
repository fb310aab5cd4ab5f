//! Text that a resumed attempt says again: cut against what was handed out before.

/// Bytes since the last checkpoint that are kept for comparison. 4 MiB: an hour of a fast model;
/// beyond it what is said again counts as said anew.
const KEPT: usize = 4 << 20;

/// What of one kind of text was handed out since the last checkpoint, and how far the attempt under
/// way has come in saying it again.
#[derive(Debug, Default)]
pub(super) struct Echo {
    /// Empty when there was too much of it.
    said: String,
    /// Bytes handed out, kept or not.
    bytes: usize,
    /// How much of `said` the attempt under way has said again.
    matched: usize,
    repeating: bool,
}

/// What a piece of text is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// Text that the caller does not have.
    New(&'a str),
    /// The caller has it already.
    Known,
    /// The attempt says something else than the one before.
    Differs(Restart),
}

/// The attempt does not repeat what was said before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Restart {
    /// Bytes that no longer hold, from the end of what was handed out.
    pub(super) dropped: usize,
    /// What stands in their place: it was held back so far.
    pub(super) instead: String,
}

impl Echo {
    /// Bytes handed out since the last checkpoint.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Another attempt begins, from the last checkpoint.
    pub(super) fn begin(&mut self) {
        self.matched = 0;
        self.repeating = self.bytes > 0;
    }

    /// Another attempt begins, from a state after which only `text` was said.
    pub(super) fn begin_after(&mut self, text: String) {
        *self = Self { bytes: text.len(), said: text, ..Self::default() };
        self.begin();
    }

    #[inline]
    pub(super) fn hear<'a>(&mut self, text: &'a str) -> Heard<'a> {
        if !self.repeating {
            self.keep(text);
            return Heard::New(text);
        }
        let rest = self.said.get(self.matched..).unwrap_or_default();
        if self.said.len() < self.bytes {
            return Heard::Differs(self.restart(text));
        }
        if rest.starts_with(text) {
            self.matched += text.len();
            self.repeating = self.matched < self.said.len();
            return Heard::Known;
        }
        match text.strip_prefix(rest) {
            Some(new) => {
                self.repeating = false;
                self.keep(new);
                Heard::New(new)
            }
            None => Heard::Differs(self.restart(text)),
        }
    }

    /// The service's state covers what the attempt under way has said; the rest may come again.
    pub(super) fn checkpoint(&mut self) {
        if self.repeating {
            self.said.drain(..self.matched);
            self.bytes -= self.matched;
            self.matched = 0;
        } else {
            *self = Self::default();
        }
    }

    /// The turn moves on. What was said before and not again no longer holds.
    pub(super) fn settle(&mut self) -> Option<Restart> {
        self.repeating.then(|| self.restart(""))
    }

    fn restart(&mut self, text: &str) -> Restart {
        let dropped = self.bytes;
        let mut instead = std::mem::take(&mut self.said);
        instead.truncate(self.matched);
        instead.push_str(text);
        *self = Self::default();
        self.keep(&instead);
        Restart { dropped, instead }
    }

    #[inline]
    fn keep(&mut self, text: &str) {
        // Once something is missing the rest is of no use.
        if self.said.len() == self.bytes && self.bytes + text.len() <= KEPT {
            self.said.push_str(text);
        } else {
            self.said = String::new();
        }
        self.bytes += text.len();
        self.matched = self.said.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Echo {
        let mut echo = Echo::default();
        assert_eq!(echo.hear(text), Heard::New(text));
        echo
    }

    fn differs(dropped: usize, instead: &str) -> Heard<'static> {
        Heard::Differs(Restart { dropped, instead: instead.to_owned() })
    }

    #[test]
    fn the_same_text_is_heard_once_wherever_it_is_split() {
        for at in 1..=5 {
            let mut echo = said("Hällo");
            echo.begin();
            let whole = "Hällo, Wörld";
            let cuts: Vec<usize> =
                (0..=whole.len()).filter(|n| whole.is_char_boundary(*n)).step_by(at).collect();
            let mut new = String::new();
            let ends = cuts.iter().skip(1).copied().chain([whole.len()]);
            for (from, to) in cuts.iter().zip(ends) {
                match echo.hear(&whole[*from..to]) {
                    Heard::New(text) => new.push_str(text),
                    Heard::Known => {}
                    Heard::Differs(_) => panic!(),
                }
            }
            assert_eq!(new, ", Wörld", "pieces of {at}");
            assert_eq!(echo.bytes(), whole.len());
        }
    }

    #[test]
    fn other_text_says_how_much_it_replaces_and_brings_what_was_held_back() {
        let mut echo = said("one two");
        echo.begin();
        assert_eq!(echo.hear("one "), Heard::Known);
        assert_eq!(echo.hear("three"), differs(7, "one three"));
        assert_eq!(echo.hear("!"), Heard::New("!"));
        echo.begin();
        assert_eq!(echo.hear("one three!?"), Heard::New("?"));
    }

    #[test]
    fn a_checkpoint_covers_what_was_said_again_and_no_more() {
        let mut echo = said("one two");
        echo.begin();
        assert_eq!(echo.hear("one "), Heard::Known);
        echo.checkpoint();
        assert_eq!(echo.bytes(), 3);
        assert_eq!(echo.hear("two three"), Heard::New(" three"));
        echo.checkpoint();
        assert_eq!(echo.bytes(), 0);
        echo.begin();
        assert_eq!(echo.hear("four"), Heard::New("four"));
    }

    #[test]
    fn an_attempt_that_says_less_restarts_when_it_moves_on() {
        let mut echo = said("one two");
        assert_eq!(echo.settle(), None);
        echo.begin();
        echo.hear("one");
        assert_eq!(echo.settle(), Some(Restart { dropped: 7, instead: "one".into() }));
        assert_eq!(echo.settle(), None);
        assert_eq!(echo.bytes(), 3);
    }

    #[test]
    fn more_than_is_kept_cannot_be_compared() {
        let mut echo = said(&"x".repeat(KEPT));
        echo.hear("y");
        assert_eq!((echo.bytes(), echo.said.capacity()), (KEPT + 1, 0));
        echo.begin();
        assert_eq!(echo.hear("x"), differs(KEPT + 1, "x"));
        assert_eq!(echo.bytes(), 1);
    }

    #[test]
    fn a_state_with_more_in_it_leaves_less_to_repeat() {
        let mut echo = said("before the tool. after");
        echo.begin_after("after".into());
        assert_eq!(echo.hear("afterwards"), Heard::New("wards"));
        echo.begin_after(String::new());
        assert_eq!(echo.hear("new"), Heard::New("new"));
    }
}
