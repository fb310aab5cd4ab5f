//! What becomes of a turn whose attempt has failed (PROTOCOL 3 and 4).

use crate::connect::Code;
use crate::error::{Error, Kind};
use crate::run::event::Remedy;
use crate::run::retry::is_worth_it;

/// How often a conversation moves to a fresh id. 3 (PROTOCOL 4).
const FRESH_IDS: u32 = 3;

/// What is known when an attempt has failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts<'a> {
    /// More than one attempt is wanted at all.
    pub(super) retries: bool,
    /// It ended because its tool calls were not answered in time.
    pub(super) pause_expired: bool,
    /// Tool calls wait for answers of the caller.
    pub(super) pending: bool,
    /// The caller was given text or a tool call, in this attempt or before.
    pub(super) handed_out: bool,
    /// What may have changed something since the last checkpoint, its answer not at hand.
    pub(super) changed: Option<&'a str>,
    /// Tools were answered since the last checkpoint: only the history knows of that.
    pub(super) answered: bool,
    /// The history can be sent: all of it is there, and the service takes it.
    pub(super) rebuildable: bool,
    /// There may be other credentials than those that were sent.
    pub(super) renewable: bool,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The error stands.
    Over,
    /// The turn broke off, and making it again could do something twice.
    Interrupted(String),
    /// It is asked again at once, after this.
    Repair(Remedy),
    /// It waits for the answers to its tool calls and goes on then.
    Park,
    /// It is tried again, when there are retries left.
    Again,
}

/// Remedies that were used.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    other_form: bool,
    fresh_ids: u32,
    rebuilt: bool,
    other_token: bool,
}

impl Repairs {
    /// The remedy for a stated error, if there is one that was not used up.
    fn take(&mut self, error: &Error) -> Option<Remedy> {
        // An error of HTTP says nothing about what is in the request.
        if error.http_status().is_some() {
            return None;
        }
        let used = match (error.kind(), error.code()) {
            (Kind::BlobMissing, _) => std::mem::replace(&mut self.rebuilt, true),
            (Kind::ConversationPoisoned, _) => {
                self.fresh_ids += 1;
                self.fresh_ids > FRESH_IDS
            }
            (_, Code::NotFound) => std::mem::replace(&mut self.other_form, true),
            _ => return None,
        };
        let remedy = match error.kind() {
            Kind::BlobMissing => Remedy::Rebuild,
            Kind::ConversationPoisoned => Remedy::FreshConversation,
            _ => Remedy::OtherModelForm,
        };
        (!used).then_some(remedy)
    }

    /// What follows from `error`.
    pub(super) fn judge(&mut self, error: &Error, facts: &Facts<'_>) -> Verdict {
        // Not an attempt more at the same: with the wrong token there was none.
        if *error.kind() == Kind::Unauthenticated
            && facts.renewable
            && !facts.handed_out
            && !std::mem::replace(&mut self.other_token, true)
        {
            return Verdict::Repair(Remedy::OtherToken);
        }
        if !facts.retries && !facts.pause_expired {
            return Verdict::Over;
        }
        if !facts.pause_expired {
            if !facts.handed_out
                && let Some(remedy) = self.take(error)
            {
                return Verdict::Repair(remedy);
            }
            if !is_worth_it(error) {
                return Verdict::Over;
            }
        }
        if let Some(what) = facts.changed {
            let why = format!("{what} may have changed something since the last checkpoint");
            return Verdict::Interrupted(why);
        }
        if (facts.pending || facts.answered) && !facts.rebuildable {
            let why = "tools ran since the last checkpoint and the history cannot be sent again";
            return Verdict::Interrupted(why.to_owned());
        }
        if facts.pending { Verdict::Park } else { Verdict::Again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::NetworkFault;

    fn cut() -> Error {
        Error::network(NetworkFault::Cut, "cut")
    }

    fn stated(kind: Kind, code: Code) -> Error {
        Error::new(kind, "stated").with_code(code)
    }

    /// Nothing was handed out yet.
    fn fresh() -> Facts<'static> {
        Facts { retries: true, rebuildable: true, ..Facts::default() }
    }

    fn judge(error: &Error, facts: &Facts<'_>) -> Verdict {
        Repairs::default().judge(error, facts)
    }

    #[test]
    fn what_happened_since_the_last_checkpoint_decides() {
        let table = [
            ("nothing", fresh(), Verdict::Again),
            ("text", Facts { handed_out: true, ..fresh() }, Verdict::Again),
            ("open calls", Facts { handed_out: true, pending: true, ..fresh() }, Verdict::Park),
            ("answers at hand", Facts { answered: true, ..fresh() }, Verdict::Again),
            ("one attempt", Facts { retries: false, ..fresh() }, Verdict::Over),
            (
                "one attempt that waited for its tools",
                Facts { retries: false, pause_expired: true, pending: true, ..fresh() },
                Verdict::Park,
            ),
        ];
        for (name, facts, verdict) in table {
            assert_eq!(judge(&cut(), &facts), verdict, "{name}");
        }
        let interrupted = [
            Facts { changed: Some("shell_args"), ..fresh() },
            Facts { changed: Some("shell_args"), pending: true, ..fresh() },
            Facts { changed: Some("shell_args"), pause_expired: true, pending: true, ..fresh() },
            Facts { answered: true, rebuildable: false, ..fresh() },
            Facts { pending: true, rebuildable: false, ..fresh() },
        ];
        for facts in interrupted {
            assert!(matches!(judge(&cut(), &facts), Verdict::Interrupted(_)), "{facts:?}");
        }
    }

    #[test]
    fn only_the_way_is_tried_again() {
        let again = [
            Error::network(NetworkFault::Dns, ""),
            Error::network(NetworkFault::Connect, ""),
            Error::network(NetworkFault::Tls, ""),
            Error::network(NetworkFault::Refused, ""),
            Error::network(NetworkFault::Reset(8), ""),
            Error::network(NetworkFault::GoAway(2), ""),
            Error::network(NetworkFault::Stalled, ""),
            Error::new(Kind::Interrupted, "clean end before turn_ended"),
            Error::new(Kind::Overloaded { retry_after: None }, "").with_http_status(503),
            Error::new(Kind::RateLimited { retry_after: None }, "").with_http_status(429),
        ];
        for error in again {
            assert_eq!(judge(&error, &fresh()), Verdict::Again, "{error:?}");
        }
        let over = [
            Error::new(Kind::Cancelled, ""),
            Error::new(Kind::DeadlineExceeded, ""),
            Error::new(Kind::Protocol, ""),
            Error::new(Kind::LimitExceeded, ""),
            Error::new(Kind::Unauthenticated, "").with_http_status(401),
            Error::new(Kind::Rejected, "").with_http_status(500),
            stated(Kind::Overloaded { retry_after: None }, Code::Unavailable),
            stated(Kind::RateLimited { retry_after: None }, Code::ResourceExhausted),
            stated(Kind::Rejected, Code::Internal),
            stated(Kind::Cancelled, Code::Canceled),
            Error::new(Kind::ModelNotAvailable, "").with_code(Code::NotFound).with_http_status(404),
        ];
        for error in over {
            assert_eq!(judge(&error, &fresh()), Verdict::Over, "{error:?}");
        }
    }

    #[test]
    fn a_refused_token_is_renewed_once_and_before_content() {
        let refused = Error::new(Kind::Unauthenticated, "no").with_http_status(401);
        let stated = stated(Kind::Unauthenticated, Code::Unauthenticated);
        // One attempt is enough to be allowed another token.
        let one = Facts { retries: false, renewable: true, ..fresh() };
        for error in [refused, stated] {
            let mut repairs = Repairs::default();
            assert_eq!(repairs.judge(&error, &one), Verdict::Repair(Remedy::OtherToken));
            assert_eq!(repairs.judge(&error, &one), Verdict::Over);
            assert_eq!(judge(&error, &Facts { handed_out: true, ..one.clone() }), Verdict::Over);
            assert_eq!(judge(&error, &fresh()), Verdict::Over);
        }
    }

    #[test]
    fn each_remedy_has_its_number_and_none_comes_after_content() {
        let table = [
            (stated(Kind::ModelNotAvailable, Code::NotFound), Remedy::OtherModelForm, 1),
            (stated(Kind::Rejected, Code::NotFound), Remedy::OtherModelForm, 1),
            (
                stated(Kind::ConversationPoisoned, Code::ResourceExhausted),
                Remedy::FreshConversation,
                3,
            ),
            (stated(Kind::BlobMissing, Code::Internal), Remedy::Rebuild, 1),
            (stated(Kind::BlobMissing, Code::NotFound), Remedy::Rebuild, 1),
        ];
        for (error, remedy, times) in table {
            let mut repairs = Repairs::default();
            for _ in 0..times {
                assert_eq!(repairs.judge(&error, &fresh()), Verdict::Repair(remedy), "{error:?}");
            }
            assert_eq!(repairs.judge(&error, &fresh()), Verdict::Over, "{error:?}");
            let late = Facts { handed_out: true, ..fresh() };
            assert_eq!(judge(&error, &late), Verdict::Over, "{error:?}");
        }
    }
}
