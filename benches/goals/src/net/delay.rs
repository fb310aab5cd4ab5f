//! A long way: every byte comes half a round trip after it was sent, and the first ones a whole round
//! trip later, as the TCP handshake would have it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Listens, and passes everything on to the port. Gives its own.
pub(super) fn line(to: u16, round_trip_ms: u64) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let round_trip = Duration::from_millis(round_trip_ms);
    std::thread::spawn(move || {
        for near in listener.incoming() {
            // A connection that breaks is the client's to notice.
            let _ = near.and_then(|near| join(near, to, round_trip));
        }
    });
    Ok(port)
}

fn join(near: TcpStream, to: u16, round_trip: Duration) -> io::Result<()> {
    let far = TcpStream::connect(("127.0.0.1", to))?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let connected = Instant::now() + round_trip;
    pump(near.try_clone()?, far.try_clone()?, round_trip / 2, connected);
    pump(far, near, round_trip / 2, connected);
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, late: Duration, earliest: Instant) {
    let (send, receive) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut chunk = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            let due = Instant::now().max(earliest) + late;
            if send.send((due, chunk[..count].to_vec())).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((due, bytes)) = receive.recv() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // It may be closed already.
        let _ = to.shutdown(Shutdown::Both);
    });
}
