//! The least that a client can do: a blocking socket, a walk over bare HTTP/2 headers, and the
//! crate's own splitter and decoder. No client that keeps to the protocol can be as cheap.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use agentwire::codec::hot::{self, Incoming};
use agentwire::connect::{Compression, Decoder, Envelope, Limits};

use super::wire::{self, HEAD, Head};
use super::{PATH, Server};

pub struct Floor {
    socket: TcpStream,
    input: Vec<u8>,
    taken: usize,
    next_stream: u32,
}

impl Floor {
    /// Connects, and opens windows that never close.
    pub fn connect(server: &Server) -> io::Result<Self> {
        const WINDOW: u32 = (1 << 31) - 1;
        let mut socket = TcpStream::connect(("127.0.0.1", server.port))?;
        socket.set_nodelay(true)?;
        let mut hello = wire::PREFACE.to_vec();
        let setting = wire::setting(wire::INITIAL_WINDOW, WINDOW);
        wire::put_frame(&mut hello, wire::SETTINGS, 0, 0, &setting);
        wire::put_window(&mut hello, 0, WINDOW - 65_535);
        socket.write_all(&hello)?;
        Ok(Self { socket, input: Vec::new(), taken: 0, next_stream: 1 })
    }

    /// One request, read to its end. `answer` is sent for every DATA frame, where there is one.
    ///
    /// # Errors
    /// The connection broke, or an envelope did.
    pub fn read(&mut self, answer: Option<&[u8]>) -> io::Result<u64> {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.ask(stream)?;
        let reply = answer.map(|answer| {
            let mut out = Vec::new();
            wire::put_frame(&mut out, wire::DATA, 0, stream, answer);
            out
        });
        let mut decoder = Decoder::new(Limits::default(), Compression::Gzip);
        let (mut sum, mut taken) = (0, 0);
        loop {
            let (head, at) = self.frame()?;
            if head.kind == wire::DATA && head.stream == stream {
                sum += texts(&mut decoder, &self.input[at..at + head.len])?;
                taken += head.len;
                if head.flags & wire::END_STREAM != 0 {
                    return self.refill(taken).map(|()| sum);
                }
                if let Some(reply) = &reply {
                    self.socket.write_all(reply)?;
                }
            } else if head.kind == wire::SETTINGS && head.flags == 0 {
                let mut ack = Vec::new();
                wire::put_frame(&mut ack, wire::SETTINGS, 1, 0, &[]);
                self.socket.write_all(&ack)?;
            }
        }
    }

    /// Gives the connection's window back, once for each stream.
    fn refill(&mut self, taken: usize) -> io::Result<()> {
        let mut out = Vec::new();
        wire::put_window(&mut out, 0, u32::try_from(taken).map_err(io::Error::other)?);
        self.socket.write_all(&out)
    }

    fn ask(&mut self, stream: u32) -> io::Result<()> {
        // `:method POST` and `:scheme http` stand in HPACK's table, `:path` and `:authority` do by name.
        let mut fields = vec![0x83, 0x86, 0x04];
        for text in [PATH, "localhost"] {
            fields.push(u8::try_from(text.len()).map_err(io::Error::other)?);
            fields.extend_from_slice(text.as_bytes());
            if text == PATH {
                fields.push(0x01);
            }
        }
        wire::put_field(&mut fields, "content-type", "application/connect+proto");
        let mut out = Vec::new();
        wire::put_frame(&mut out, wire::HEADERS, wire::END_HEADERS, stream, &fields);
        wire::put_frame(&mut out, wire::DATA, 0, stream, &[0; 5]);
        self.socket.write_all(&out)
    }

    /// The next frame, and where its payload begins in `input`.
    fn frame(&mut self) -> io::Result<(Head, usize)> {
        loop {
            if let Some(head) = self.input.get(self.taken..).and_then(<[u8]>::first_chunk) {
                let head = Head::parse(head);
                let at = self.taken + HEAD;
                if self.input.len() >= at + head.len {
                    self.taken = at + head.len;
                    return Ok((head, at));
                }
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        const CHUNK: usize = 64 << 10;
        self.input.drain(..std::mem::take(&mut self.taken));
        let mut chunk = [0; CHUNK];
        let count = self.socket.read(&mut chunk)?;
        self.input.extend_from_slice(&chunk[..count]);
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

fn texts(decoder: &mut Decoder, mut chunk: &[u8]) -> io::Result<u64> {
    let mut sum = 0;
    while let Some(envelope) = decoder.next(&mut chunk).map_err(io::Error::other)? {
        if let Envelope::Message(payload) = envelope
            && let Ok(Incoming::Text(text)) = hot::decode(payload)
        {
            sum += text.len() as u64;
        }
    }
    Ok(sum)
}
