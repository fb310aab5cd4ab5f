//! The canned server: a process of its own on another core, that writes bytes made beforehand. It
//! keeps to the client's windows and does nothing else that a server does, so that the client is
//! what is measured.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::plan::{self, Answer, Plan};
use super::wire::{self, HEAD, Head};
use super::{CERTIFICATE_ENDS, delay};

/// Between two messages of [`Answer::Paced`].
const PACE: Duration = Duration::from_micros(40);

/// How often a connection of [`Answer::Hold`] looks whether all requests are there.
const LOOK: Duration = Duration::from_millis(1);

/// Serves until its parent closes the standard input.
pub(super) fn serve(plan: Plan) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let tls = plan.tls.then(certificate);
    let outer = if plan.delay > 0 { delay::line(port, plan.delay)? } else { port };
    println!("{outer}");
    print!("{}", tls.as_ref().map_or("", |(pem, _)| pem));
    println!("{CERTIFICATE_ENDS}");
    std::thread::spawn(|| {
        // The parent is gone when this ends; nothing it said matters.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let shared = Arc::new(Shared { plan, frames: Frames::new(&plan), opened: AtomicUsize::new(0) });
    loop {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let (shared, tls) =
            (Arc::clone(&shared), tls.as_ref().map(|(_, config)| Arc::clone(config)));
        std::thread::spawn(move || {
            // A client that hangs up is the end of every connection.
            let _ = connection(socket, tls, &shared);
        });
    }
}

fn connection(
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    shared: &Shared,
) -> io::Result<()> {
    if matches!(shared.plan.answer, Answer::Hold(_)) {
        socket.set_read_timeout(Some(LOOK))?;
    }
    match tls {
        None => Connection::new(socket, shared).run(),
        Some(config) => {
            let session = ServerConnection::new(config).map_err(io::Error::other)?;
            Connection::new(StreamOwned::new(session, socket), shared).run()
        }
    }
}

/// A certificate for `localhost`, and the configuration with it.
fn certificate() -> (String, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])
        .expect("a certificate can be made");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("the certificate is as rustls wants it");
    config.alpn_protocols = vec![b"h2".to_vec()];
    (made.cert.pem(), Arc::new(config))
}

struct Shared {
    plan: Plan,
    frames: Frames,
    /// Requests that came so far, on all connections.
    opened: AtomicUsize,
}

/// Everything of an answer, for stream 0.
struct Frames {
    head: Vec<u8>,
    /// Frames of one length, one behind the other.
    messages: Vec<u8>,
    /// What DATA frames among `messages` carry.
    size: usize,
    end: Vec<Vec<u8>>,
}

impl Frames {
    fn new(plan: &Plan) -> Self {
        let payloads = plan.frames();
        let mut messages = Vec::new();
        payloads
            .iter()
            .for_each(|payload| wire::put_frame(&mut messages, wire::DATA, 0, 0, payload));
        let kind = if plan.grpc { "application/grpc" } else { "application/connect+proto" };
        let mut fields = vec![0x88];
        wire::put_field(&mut fields, "content-type", kind);
        let mut head = Vec::new();
        wire::put_frame(&mut head, wire::HEADERS, wire::END_HEADERS, 0, &fields);
        let mut last = Vec::new();
        wire::put_frame(&mut last, wire::DATA, 0, 0, &plan::last());
        let mut end = Vec::new();
        if plan.grpc {
            let mut fields = Vec::new();
            wire::put_field(&mut fields, "grpc-status", "0");
            let flags = wire::END_HEADERS | wire::END_STREAM;
            wire::put_frame(&mut end, wire::HEADERS, flags, 0, &fields);
        } else {
            wire::put_frame(&mut end, wire::DATA, wire::END_STREAM, 0, &plan::end());
        }
        Self { head, size: payloads.first().map_or(0, Vec::len), messages, end: vec![last, end] }
    }

    fn len(&self) -> usize {
        self.messages.len() / (HEAD + self.size)
    }
}

struct Connection<'a, S> {
    io: S,
    shared: &'a Shared,
    input: Vec<u8>,
    /// How much of `input` was taken.
    taken: usize,
    /// What the client still takes on the connection, and on a stream when it is opened.
    window: i64,
    initial: i64,
    streams: HashMap<u32, Stream>,
}

struct Stream {
    window: i64,
    /// Frames of messages that were sent.
    sent: usize,
    /// The request's place among all.
    place: usize,
}

impl<'a, S: Read + Write> Connection<'a, S> {
    fn new(io: S, shared: &'a Shared) -> Self {
        let (window, initial) = (65_535, 65_535);
        Self { io, shared, input: Vec::new(), taken: 0, window, initial, streams: HashMap::new() }
    }

    fn run(mut self) -> io::Result<()> {
        // Requests are small and never wait for a window.
        let mut hello = Vec::new();
        let settings =
            [wire::setting(wire::INITIAL_WINDOW, 1 << 30), wire::setting(wire::MAX_STREAMS, 4_096)];
        wire::put_frame(&mut hello, wire::SETTINGS, 0, 0, settings.as_flattened());
        wire::put_window(&mut hello, 0, 1 << 30);
        while self.input.len() < wire::PREFACE.len() {
            self.fill()?;
        }
        self.taken = wire::PREFACE.len();
        self.io.write_all(&hello)?;
        loop {
            self.take_frame()?;
        }
    }

    /// Reads, and takes one frame.
    fn take_frame(&mut self) -> io::Result<()> {
        let head = loop {
            if let Some(head) = self.input.get(self.taken..).and_then(<[u8]>::first_chunk) {
                let head = Head::parse(head);
                if self.input.len() - self.taken >= HEAD + head.len {
                    break head;
                }
            }
            self.fill()?;
        };
        let at = self.taken + HEAD;
        let payload = self.input[at..at + head.len].to_vec();
        self.taken = at + head.len;
        match head.kind {
            wire::HEADERS => self.opened(head.stream),
            wire::DATA => self.data(head.stream),
            wire::SETTINGS if head.flags == 0 => self.settings(&payload),
            wire::PING if head.flags == 0 => {
                let mut pong = Vec::new();
                wire::put_frame(&mut pong, wire::PING, 1, 0, &payload);
                self.io.write_all(&pong)
            }
            wire::WINDOW_UPDATE => {
                let grown =
                    payload.first_chunk().map_or(0, |bytes| i64::from(u32::from_be_bytes(*bytes)));
                match self.streams.get_mut(&head.stream) {
                    _ if head.stream == 0 => self.window += grown,
                    Some(stream) => stream.window += grown,
                    None => {}
                }
                Ok(())
            }
            wire::RST_STREAM => {
                self.streams.remove(&head.stream);
                Ok(())
            }
            wire::GOAWAY => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.input.drain(..std::mem::take(&mut self.taken));
        let mut chunk = [0; 16 << 10];
        let count = loop {
            match self.io.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.release()?,
                other => break other?,
            }
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.input.extend_from_slice(&chunk[..count]);
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> io::Result<()> {
        for setting in payload.as_chunks::<6>().0 {
            let [a, b, c, d, e, f] = *setting;
            if u16::from_be_bytes([a, b]) == wire::INITIAL_WINDOW {
                self.initial = i64::from(u32::from_be_bytes([c, d, e, f]));
            }
        }
        let mut ack = Vec::new();
        wire::put_frame(&mut ack, wire::SETTINGS, 1, 0, &[]);
        self.io.write_all(&ack)
    }

    fn opened(&mut self, id: u32) -> io::Result<()> {
        let place = self.shared.opened.fetch_add(1, Ordering::SeqCst);
        self.streams.insert(id, Stream { window: self.initial, sent: 0, place });
        let mut head = self.shared.frames.head.clone();
        address(&mut head, 0, id);
        self.io.write_all(&head)?;
        match self.shared.plan.answer {
            Answer::Single(_) | Answer::Packed(_) => self.messages(id, usize::MAX)?,
            Answer::Paced(count) => {
                let mut next = Instant::now();
                for _ in 0..count {
                    while Instant::now() < next {
                        std::hint::spin_loop();
                    }
                    next += PACE;
                    self.messages(id, 1)?;
                }
            }
            // The questions wait for the request's body.
            Answer::Ping(_) => return Ok(()),
            Answer::Hold(_) => {
                self.messages(id, 1)?;
                return self.release();
            }
        }
        self.end(id)
    }

    /// A request's body came, or an answer in it.
    fn data(&mut self, id: u32) -> io::Result<()> {
        let Some(stream) = self.streams.get(&id) else { return Ok(()) };
        match self.shared.plan.answer {
            Answer::Ping(_) if stream.sent == self.shared.frames.len() => self.end(id),
            Answer::Ping(_) => self.messages(id, 1),
            _ => Ok(()),
        }
    }

    /// The rest of the answers when all requests are there.
    fn release(&mut self) -> io::Result<()> {
        let Answer::Hold(group) = self.shared.plan.answer else { return Ok(()) };
        let opened = self.shared.opened.load(Ordering::SeqCst) / group * group;
        let due: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.place < opened)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.messages(id, usize::MAX)?;
            self.end(id)?;
        }
        Ok(())
    }

    /// At most `count` of the frames that were not sent yet, as the windows have room.
    fn messages(&mut self, id: u32, count: usize) -> io::Result<()> {
        let frames = &self.shared.frames;
        let (size, all) = (frames.size, frames.len());
        let Some(stream) = self.streams.get(&id) else { return Ok(()) };
        let first = stream.sent;
        let last = first.saturating_add(count).min(all);
        let mut wire = frames.messages[first * (HEAD + size)..last * (HEAD + size)].to_vec();
        for at in 0..last - first {
            address(&mut wire, at * (HEAD + size), id);
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
            let room = usize::try_from(stream.window.min(self.window)).unwrap_or(0) / size;
            if room == 0 {
                self.take_frame()?;
                continue;
            }
            let frames = room.min(rest.len() / (HEAD + size));
            let bytes = (frames * size) as i64;
            stream.window -= bytes;
            stream.sent += frames;
            self.window -= bytes;
            let (now, later) = rest.split_at(frames * (HEAD + size));
            self.io.write_all(now)?;
            rest = later;
        }
        Ok(())
    }

    fn end(&mut self, id: u32) -> io::Result<()> {
        let mut out = Vec::new();
        for frame in &self.shared.frames.end {
            let at = out.len();
            out.extend_from_slice(frame);
            address(&mut out, at, id);
            self.window -= (frame.len() - HEAD) as i64;
        }
        self.streams.remove(&id);
        self.io.write_all(&out)
    }
}

/// Writes the stream's id into the frame at `at`.
fn address(wire: &mut [u8], at: usize, id: u32) {
    wire[at + 5..at + HEAD].copy_from_slice(&id.to_be_bytes());
}
