//! HTTP/2 by hand, as little as canned bytes need.

/// Bytes of a frame's header.
pub const HEAD: usize = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

/// Of DATA and HEADERS; ACK of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The connection preface of a client.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The header of one frame.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub len: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Head {
    pub fn parse(bytes: &[u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *bytes;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { len, kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff }
    }
}

pub fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("frames are short");
    out.extend_from_slice(&len.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

pub fn put_window(out: &mut Vec<u8>, stream: u32, grown: u32) {
    put_frame(out, WINDOW_UPDATE, 0, stream, &grown.to_be_bytes());
}

/// A header field that no table has to know (RFC 7541 section 6.2.2).
pub fn put_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        // One byte of length, no Huffman: the names and values here are short.
        out.push(u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short text"));
        out.extend_from_slice(text.as_bytes());
    }
}

/// One setting.
pub fn setting(id: u16, value: u32) -> [u8; 6] {
    let [a, b] = id.to_be_bytes();
    let [c, d, e, f] = value.to_be_bytes();
    [a, b, c, d, e, f]
}

pub const INITIAL_WINDOW: u16 = 4;
pub const MAX_STREAMS: u16 = 3;
