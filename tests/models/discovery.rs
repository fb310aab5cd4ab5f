//! When the service is asked for its models, on a virtual clock (BEHAVIOUR 10; 12, C031 to C043).

use std::time::{Duration, Instant};

use agentwire::models::{
    CacheKey, Discovery, DiscoveryOptions, Outcome, Step, Ticket, Trigger, Wanted,
};
use proptest::prelude::*;

fn key(account: &str) -> CacheKey {
    CacheKey::new(account, "https://example.invalid")
}

#[allow(clippy::disallowed_methods, reason = "the zero of a virtual clock")]
fn start() -> Instant {
    Instant::now()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn new() -> Discovery {
    Discovery::new(DiscoveryOptions::default())
}

fn asked(discovery: &mut Discovery, now: Instant) -> Ticket {
    match discovery.poll(now) {
        Step::Ask(_, ticket) => ticket,
        step => panic!("{step:?}"),
    }
}

#[test]
fn c031_c035_one_question_for_each_account() {
    let (mut discovery, now) = (new(), start());
    for account in ["a", "a", "b"] {
        assert_eq!(discovery.want(&key(account), Trigger::Use, now), Wanted::Asking);
    }
    let first = asked(&mut discovery, now);
    let second = asked(&mut discovery, now);
    assert_ne!(first, second);
    assert_eq!(discovery.poll(now), Step::Wait(Some(now + secs(60))));
    assert_eq!(discovery.want(&key("a"), Trigger::Now, now), Wanted::Asking, "it is under way");
    assert_eq!(discovery.poll(now), Step::Wait(Some(now + secs(60))));

    assert!(discovery.finished(first, Outcome::Listed, now));
    assert!(!discovery.finished(first, Outcome::Listed, now), "a ticket is used once");
    assert_eq!(discovery.want(&key("a"), Trigger::Use, now + secs(1)), Wanted::Fresh);
    let day = now + secs(24 * 60 * 60);
    assert!(discovery.finished(second, Outcome::Listed, now + secs(1)));
    assert_eq!(discovery.poll(now + secs(1)), Step::Wait(Some(day)));
    assert!(
        matches!(discovery.poll(day), Step::Ask(again, _) if again == key("a")),
        "in the background"
    );
}

#[test]
fn new_credentials_ask_at_once() {
    let (mut discovery, now) = (new(), start());
    discovery.loaded(&key("a"), Some(secs(60 * 60)), now);
    assert_eq!(discovery.want(&key("a"), Trigger::Use, now), Wanted::Fresh);
    assert_eq!(discovery.poll(now), Step::Wait(Some(now + secs(23 * 60 * 60))));
    assert_eq!(discovery.want(&key("a"), Trigger::Now, now), Wanted::Asking);
    let ticket = asked(&mut discovery, now);
    assert!(discovery.finished(ticket, Outcome::Refused, now));
    assert_eq!(discovery.want(&key("a"), Trigger::Use, now), Wanted::Refused);
    assert_eq!(discovery.poll(now), Step::Wait(None));
    assert_eq!(discovery.want(&key("a"), Trigger::Now, now), Wanted::Asking);
}

#[test]
fn a_stale_cache_is_refreshed() {
    let (mut discovery, now) = (new(), start());
    for age in [None, Some(secs(25 * 60 * 60))] {
        discovery.loaded(&key("a"), age, now);
        assert_eq!(discovery.want(&key("a"), Trigger::Use, now), Wanted::Asking);
    }
}

/// C041, and what the reference lacks (BEHAVIOUR 13, H34): five uses after a failure are one question.
#[test]
fn c041_failures_pause_longer_and_longer() {
    let (mut discovery, mut now) = (new(), start());
    discovery.want(&key("a"), Trigger::Use, now);
    let mut pauses = Vec::new();
    for _ in 0..11 {
        let ticket = asked(&mut discovery, now);
        discovery.finished(ticket, Outcome::Failed(None), now);
        for _ in 0..5 {
            assert!(matches!(discovery.want(&key("a"), Trigger::Use, now), Wanted::Paused(_)));
        }
        let Step::Wait(Some(next)) = discovery.poll(now) else { panic!("a pause") };
        pauses.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    let ticket = asked(&mut discovery, now);
    discovery.finished(ticket, Outcome::Listed, now);
    discovery.want(&key("a"), Trigger::Now, now);
    let ticket = asked(&mut discovery, now);
    discovery.finished(ticket, Outcome::Failed(Some(secs(20))), now);
    assert_eq!(discovery.poll(now), Step::Wait(Some(now + secs(20))), "what the service asked for");
}

#[test]
fn c042_a_question_that_never_ends_is_given_up() {
    let (mut discovery, now) = (new(), start());
    discovery.want(&key("a"), Trigger::Use, now);
    let ticket = asked(&mut discovery, now);
    let late = now + secs(60);
    assert_eq!(discovery.poll(late), Step::Abort(ticket));
    assert!(!discovery.finished(ticket, Outcome::Listed, late), "too late");
    assert_eq!(discovery.poll(late), Step::Wait(Some(late + secs(1))));

    let ticket = asked(&mut discovery, late + secs(1));
    assert!(discovery.is_asking());
    discovery.dispose();
    assert!(!discovery.is_asking());
    assert_eq!(discovery.poll(late), Step::Abort(ticket));
    assert_eq!(discovery.poll(late), Step::Wait(None));
    assert_eq!(discovery.want(&key("a"), Trigger::Now, late), Wanted::Disposed);
}

#[test]
fn signing_out_gives_the_question_up() {
    let (mut discovery, now) = (new(), start());
    discovery.want(&key("a"), Trigger::Use, now);
    let ticket = asked(&mut discovery, now);
    discovery.forget(&key("a"));
    assert_eq!(discovery.poll(now), Step::Abort(ticket));
    assert!(!discovery.finished(ticket, Outcome::Listed, now));
    assert_eq!(discovery.poll(now), Step::Wait(None));
}

#[test]
fn accounts_have_an_end() {
    let (mut discovery, now) = (new(), start());
    for n in 0..1000 {
        discovery.want(&key(&n.to_string()), Trigger::Use, now + Duration::from_millis(n));
    }
    let mut asked = 0;
    while let Step::Ask(..) = discovery.poll(now + secs(2)) {
        asked += 1;
    }
    assert_eq!(asked, DiscoveryOptions::default().accounts);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Never two questions for one account, and every one that was given out ends or is given up.
    #[test]
    fn never_two_questions_for_one_account(steps in prop::collection::vec((0..6_u8, 0..3_u8, 0..90_u64), 0..80)) {
        let (mut discovery, mut now) = (new(), start());
        let mut open: Vec<(CacheKey, Ticket)> = Vec::new();
        for (what, account, wait) in steps {
            let key = key(&account.to_string());
            now += secs(wait);
            match what {
                0 => drop(discovery.want(&key, Trigger::Use, now)),
                1 => drop(discovery.want(&key, Trigger::Now, now)),
                2 => discovery.forget(&key),
                _ => {
                    let outcome = [Outcome::Listed, Outcome::Failed(None), Outcome::Refused];
                    if let Some((_, ticket)) = open.pop() {
                        discovery.finished(ticket, outcome[usize::from(what - 3)], now);
                    }
                }
            }
            loop {
                match discovery.poll(now) {
                    Step::Ask(key, ticket) => {
                        prop_assert!(open.iter().all(|(other, _)| *other != key));
                        open.push((key, ticket));
                    }
                    Step::Abort(ticket) => open.retain(|(_, other)| *other != ticket),
                    Step::Wait(at) => {
                        prop_assert!(at.is_none_or(|at| at > now), "a wait is for later");
                        break;
                    }
                }
            }
            prop_assert_eq!(discovery.is_asking(), !open.is_empty());
        }
        discovery.dispose();
        while let Step::Abort(ticket) = discovery.poll(now) {
            open.retain(|(_, other)| *other != ticket);
        }
        prop_assert!(open.is_empty());
    }
}
