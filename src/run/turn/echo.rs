//! Text that a resumed attempt says again: cut against what was handed out before.

/// How much of one kind of text was handed out since the last checkpoint, and, while an attempt
/// says it again, how far it has come. The text itself is the transcript's.
#[derive(Debug, Default)]
pub(super) struct Echo {
    /// Bytes handed out.
    bytes: usize,
    repeat: Option<Repeat>,
}

/// What an attempt has to say again.
#[derive(Debug)]
struct Repeat {
    /// `None`: there was too much of it to be kept.
    said: Option<String>,
    /// How much of it was said again.
    matched: usize,
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

    /// Another attempt begins, from the last checkpoint. `said` gives the last so many bytes that
    /// were handed out, where they are known.
    pub(super) fn begin(&mut self, said: impl FnOnce(usize) -> Option<String>) {
        self.repeat = (self.bytes > 0).then(|| Repeat { said: said(self.bytes), matched: 0 });
    }

    /// Another attempt begins, from a state after which only `text` was said.
    pub(super) fn begin_after(&mut self, text: String) {
        self.bytes = text.len();
        self.begin(|_| Some(text));
    }

    #[inline]
    pub(super) fn hear<'a>(&mut self, text: &'a str) -> Heard<'a> {
        if self.repeat.is_some() {
            return self.compare(text);
        }
        self.bytes += text.len();
        Heard::New(text)
    }

    #[cold]
    fn compare<'a>(&mut self, text: &'a str) -> Heard<'a> {
        let Some(Repeat { said: Some(said), matched }) = &mut self.repeat else {
            return Heard::Differs(self.restart(text));
        };
        let rest = said.get(*matched..).unwrap_or_default();
        if rest.starts_with(text) {
            *matched += text.len();
            if *matched == said.len() {
                self.repeat = None;
            }
            return Heard::Known;
        }
        match text.strip_prefix(rest) {
            Some(new) => {
                self.repeat = None;
                self.bytes += new.len();
                Heard::New(new)
            }
            None => Heard::Differs(self.restart(text)),
        }
    }

    /// The service's state covers what the attempt under way has said; the rest may come again.
    pub(super) fn checkpoint(&mut self) {
        match &mut self.repeat {
            Some(Repeat { said, matched }) => {
                let covered = std::mem::take(matched);
                if let Some(said) = said {
                    said.drain(..covered);
                }
                self.bytes -= covered;
            }
            None => self.bytes = 0,
        }
    }

    /// The turn moves on. What was said before and not again no longer holds.
    pub(super) fn settle(&mut self) -> Option<Restart> {
        self.repeat.is_some().then(|| self.restart(""))
    }

    fn restart(&mut self, text: &str) -> Restart {
        let dropped = self.bytes;
        let mut instead = match self.repeat.take() {
            Some(Repeat { said: Some(mut said), matched }) => {
                said.truncate(matched);
                said
            }
            _ => String::new(),
        };
        instead.push_str(text);
        self.bytes = instead.len();
        Restart { dropped, instead }
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

    /// Another attempt begins, and `text` is what was said.
    fn begin(echo: &mut Echo, text: &str) {
        echo.begin(|bytes| {
            assert_eq!(bytes, text.len());
            Some(text.to_owned())
        });
    }

    fn differs(dropped: usize, instead: &str) -> Heard<'static> {
        Heard::Differs(Restart { dropped, instead: instead.to_owned() })
    }

    #[test]
    fn the_same_text_is_heard_once_wherever_it_is_split() {
        for at in 1..=5 {
            let mut echo = said("Hällo");
            begin(&mut echo, "Hällo");
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
        begin(&mut echo, "one two");
        assert_eq!(echo.hear("one "), Heard::Known);
        assert_eq!(echo.hear("three"), differs(7, "one three"));
        assert_eq!(echo.hear("!"), Heard::New("!"));
        begin(&mut echo, "one three!");
        assert_eq!(echo.hear("one three!?"), Heard::New("?"));
    }

    #[test]
    fn a_checkpoint_covers_what_was_said_again_and_no_more() {
        let mut echo = said("one two");
        begin(&mut echo, "one two");
        assert_eq!(echo.hear("one "), Heard::Known);
        echo.checkpoint();
        assert_eq!(echo.bytes(), 3);
        assert_eq!(echo.hear("two three"), Heard::New(" three"));
        echo.checkpoint();
        assert_eq!(echo.bytes(), 0);
        echo.begin(|_| panic!("there is nothing to say again"));
        assert_eq!(echo.hear("four"), Heard::New("four"));
    }

    #[test]
    fn an_attempt_that_says_less_restarts_when_it_moves_on() {
        let mut echo = said("one two");
        assert_eq!(echo.settle(), None);
        begin(&mut echo, "one two");
        echo.hear("one");
        assert_eq!(echo.settle(), Some(Restart { dropped: 7, instead: "one".into() }));
        assert_eq!(echo.settle(), None);
        assert_eq!(echo.bytes(), 3);
    }

    #[test]
    fn what_was_not_kept_cannot_be_compared() {
        let mut echo = said("one two");
        echo.begin(|_| None);
        assert_eq!(echo.hear("one"), differs(7, "one"));
        assert_eq!(echo.bytes(), 3);
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
