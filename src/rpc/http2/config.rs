//! The settings of a connection, each with its default and its reason.

use std::time::Duration;

/// Settings of one HTTP/2 connection, client or server.
///
/// [`Http2Config::default`] is the client's, [`Http2Config::server`] the listener's.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Http2Config {
    /// Bytes that the peer may send on one stream before the consumer took any. 2 MiB: it is also
    /// what one stream can hold in memory here, and fills 25 MB/s at 80 ms round trip.
    pub stream_window: u32,
    /// Bytes that the peer may send on all streams together before any was taken. 256 MiB for the
    /// client, so that 128 stalled consumers do not stop the others (FAULTS M72): memory is bounded
    /// by `stream_window` times the streams that the client itself opened. 16 MiB for the server,
    /// where the peer decides how many streams there are.
    pub connection_window: u32,
    /// What h2 lets small unread DATA frames cost, 256 minus their length each, before it ends the
    /// connection. 16 MiB: at most `read_burst` bytes wait unread, which is 6.7 MiB of cost when
    /// every frame carries one byte. h2's own default dies after 146 token deltas.
    pub data_frame_budget: usize,
    /// Bytes taken from the socket before the streams are drained. 256 KiB: bounds what h2 queues
    /// in frames; large enough that draining costs nothing.
    pub read_burst: usize,
    /// Largest header list taken, in bytes. 64 KiB (FAULTS, promises).
    pub max_header_list: u32,
    /// Streams that the peer may have open at once. 0 for the client (push is off), 128 for the
    /// server: a client of this protocol needs one per run, and 100 is what RFC 9113 asks at least.
    pub max_concurrent_streams: u32,
    /// Streams that the peer may open and reset before they were taken up, before the connection is
    /// ended with ENHANCE_YOUR_CALM (rapid reset). 20, h2's default.
    pub max_pending_reset_streams: usize,
    /// Bytes that one stream may keep queued for sending, over what the peer's window takes. 4 MiB;
    /// one piece larger than that is still taken when the queue is empty.
    pub send_queue: usize,
    /// How long written bytes may wait without any of them leaving. 30 s (FAULTS, promises).
    pub write_stall: Duration,
    /// Silence after which a PING asks whether the peer lives, while streams are open. 30 s: shorter
    /// than the idle limits of usual load balancers. `None` turns it off.
    pub ping_interval: Option<Duration>,
    /// How long anything may take to come after that PING. 20 s, as grpc, tonic and hyper have it.
    pub ping_timeout: Duration,
    /// How long the peer's first frame (SETTINGS), or the client's preface, may take. 10 s.
    pub settings_timeout: Duration,
    /// How long a connection that ends may take to write its last frames. 1 s: nobody waits for it.
    pub close_timeout: Duration,
    /// How long the server keeps a connection without any stream. 120 s; `None` for ever, and for
    /// the client always, whose pool decides.
    pub idle_timeout: Option<Duration>,
}

impl Default for Http2Config {
    fn default() -> Self {
        Self {
            stream_window: 2 << 20,
            connection_window: 256 << 20,
            data_frame_budget: 16 << 20,
            read_burst: 256 << 10,
            max_header_list: 64 << 10,
            max_concurrent_streams: 0,
            max_pending_reset_streams: 20,
            send_queue: 4 << 20,
            write_stall: Duration::from_secs(30),
            ping_interval: Some(Duration::from_secs(30)),
            ping_timeout: Duration::from_secs(20),
            settings_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(1),
            idle_timeout: None,
        }
    }
}

impl Http2Config {
    /// The settings of a listener.
    pub fn server() -> Self {
        Self {
            connection_window: 16 << 20,
            max_concurrent_streams: 128,
            idle_timeout: Some(Duration::from_secs(120)),
            ..Self::default()
        }
    }
}
