//! Whether the peer lives: the rule, without clock or socket.

use std::time::Duration;

use tokio::time::Instant;

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Send a PING.
    Ping,
    /// Silence after a PING for too long.
    Dead,
    /// Nothing, until then.
    Wait(Option<Instant>),
}

/// Silence, then a PING, then death. Any byte counts as life: a busy link may hold the answer back.
pub(super) struct KeepAlive {
    interval: Option<Duration>,
    timeout: Duration,
    read: u64,
    last: Instant,
    asked: Option<Instant>,
}

impl KeepAlive {
    pub(super) fn new(interval: Option<Duration>, timeout: Duration, now: Instant) -> Self {
        Self { interval, timeout, read: 0, last: now, asked: None }
    }

    /// `read` bytes have come so far.
    pub(super) fn note(&mut self, read: u64, now: Instant) {
        if read != self.read {
            self.read = read;
            self.last = now;
            self.asked = None;
        }
    }

    /// `active`: there are open streams; without any, silence is right. A stream that opens after
    /// long silence asks at once, since the connection may have died unnoticed.
    pub(super) fn beat(&mut self, active: bool, now: Instant) -> Beat {
        let Some(interval) = self.interval.filter(|_| active) else {
            self.asked = None;
            return Beat::Wait(None);
        };
        let due = self.asked.unwrap_or(self.last + interval);
        match self.asked {
            Some(asked) if now >= asked + self.timeout => Beat::Dead,
            Some(asked) => Beat::Wait(Some(asked + self.timeout)),
            None if now >= due => {
                self.asked = Some(now);
                Beat::Ping
            }
            None => Beat::Wait(Some(due)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_asks_then_gives_up_and_any_byte_renews() {
        let start = Instant::now();
        let mut alive = KeepAlive::new(Some(30 * S), 20 * S, start);
        assert_eq!(alive.beat(true, start), Beat::Wait(Some(start + 30 * S)));
        assert_eq!(alive.beat(true, start + 30 * S), Beat::Ping);
        assert_eq!(alive.beat(true, start + 31 * S), Beat::Wait(Some(start + 50 * S)));
        alive.note(1, start + 40 * S);
        assert_eq!(alive.beat(true, start + 50 * S), Beat::Wait(Some(start + 70 * S)));
        assert_eq!(alive.beat(true, start + 70 * S), Beat::Ping);
        assert_eq!(alive.beat(true, start + 90 * S), Beat::Dead);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_left_alone_until_a_stream_opens() {
        let start = Instant::now();
        let mut alive = KeepAlive::new(Some(30 * S), 20 * S, start);
        assert_eq!(alive.beat(false, start + 500 * S), Beat::Wait(None));
        assert_eq!(alive.beat(true, start + 501 * S), Beat::Ping);
        let mut off = KeepAlive::new(None, 20 * S, start);
        assert_eq!(off.beat(true, start + 501 * S), Beat::Wait(None));
    }
}
