//! What came on a stream and waits for its consumer: which frames are kept as they are, which are
//! copied together, and how much memory that takes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Frames below this size are copied together where several wait; larger ones are kept as they came,
/// since a slice of that size pins little more than itself.
const SMALL: usize = 4 << 10;
/// Memory for copied frames that a stream asks for at first, in bytes. Most have a few small frames,
/// and there may be a thousand streams.
const FIRST: usize = 1 << 10;
/// Memory that is asked for at a time in the end, in bytes: each time it is twice as much. Where
/// frames wait again and again, hundreds do.
const PIECE: usize = 16 << 10;
/// The copied piece is closed at this size, so that growing never copies much again.
const TAIL: usize = 64 << 10;

/// Frames in order, as pieces to be taken.
#[derive(Debug)]
pub(super) struct Unread {
    whole: VecDeque<Bytes>,
    /// Small frames, copied; behind all of `whole`.
    tail: BytesMut,
    /// How much is asked for next.
    piece: usize,
}

impl Default for Unread {
    fn default() -> Self {
        Self { whole: VecDeque::new(), tail: BytesMut::new(), piece: FIRST }
    }
}

impl Unread {
    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.tail.is_empty()
    }

    /// Puts a frame behind all others.
    pub(super) fn push(&mut self, frame: Bytes) {
        if self.is_empty() {
            // The first for a consumer that has caught up, which is each one at the pace of a model.
            self.whole.push_back(frame);
            return;
        }
        if self.tail.is_empty()
            && let Some(first) = self.whole.pop_back_if(|last| last.len() < SMALL)
        {
            // It was not the only one: as it is, it pins all that h2 read with it.
            self.copy(&first);
        }
        if frame.len() < SMALL && self.tail.len() + frame.len() <= TAIL {
            return self.copy(&frame);
        }
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.whole.push_back(tail);
        }
        if frame.len() < SMALL {
            self.copy(&frame);
        } else {
            self.whole.push_back(frame);
        }
    }

    fn copy(&mut self, frame: &[u8]) {
        if self.tail.capacity() - self.tail.len() < frame.len() {
            self.tail.reserve(self.piece.max(frame.len()));
            self.piece = PIECE.min(self.piece * 2);
        }
        self.tail.extend_from_slice(frame);
    }

    /// Takes the first piece.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let whole = self.whole.pop_front();
        whole.or_else(|| (!self.tail.is_empty()).then(|| self.tail.split().freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![b'x'; len])
    }

    fn lengths(unread: &mut Unread) -> Vec<usize> {
        std::iter::from_fn(|| unread.pop()).map(|piece| piece.len()).collect()
    }

    #[test]
    fn small_frames_come_out_as_one_and_large_ones_as_they_are() {
        let mut unread = Unread::default();
        for (frames, pieces) in [
            (&[][..], &[][..]),
            (&[30], &[30]),
            (&[30, 40, 50], &[120]),
            (&[SMALL], &[SMALL]),
            (&[SMALL, SMALL + 1], &[SMALL, SMALL + 1]),
            (&[30, SMALL, 40, 50, SMALL], &[30, SMALL, 90, SMALL]),
            (&[SMALL, 30, 40], &[SMALL, 70]),
            (&[SMALL - 1; 17], &[16 * (SMALL - 1), SMALL - 1]),
        ] {
            frames.iter().for_each(|len| unread.push(frame(*len)));
            assert_eq!(lengths(&mut unread), pieces, "{frames:?}");
            assert!(unread.is_empty());
        }
    }

    #[test]
    fn what_comes_out_is_what_went_in() {
        let mut unread = Unread::default();
        let (mut went_in, mut came_out) = (Vec::new(), Vec::new());
        for round in 0..2_000_usize {
            let len = [1, 31, 900, SMALL - 1, SMALL, 9_000][round * 7 % 13 % 6];
            let frame: Vec<_> = (0..len).map(|at| (at * 31 + round) as u8).collect();
            went_in.extend_from_slice(&frame);
            unread.push(frame.into());
            if round % 11 < round % 5 {
                came_out.extend(unread.pop().into_iter().flatten());
            }
        }
        while let Some(piece) = unread.pop() {
            came_out.extend_from_slice(&piece);
        }
        assert!(came_out == went_in);
    }

    #[test]
    fn one_frame_at_a_time_is_not_copied() {
        let mut unread = Unread::default();
        for _ in 0..3 {
            let frame = frame(30);
            unread.push(frame.clone());
            assert_eq!(unread.pop().map(|piece| piece.as_ptr()), Some(frame.as_ptr()));
        }
        assert_eq!(unread.tail.capacity(), 0);
    }

    /// A frame is a slice of all that was read with it.
    #[test]
    fn small_frames_that_wait_do_not_pin_what_they_came_with() {
        let read = frame(64 << 10);
        let mut unread = Unread::default();
        for at in 0..2 {
            unread.push(read.slice(at * 30..(at + 1) * 30));
        }
        assert!(read.is_unique());
    }

    #[test]
    fn memory_grows_with_what_waits() {
        let mut unread = Unread::default();
        let mut wait = |frames: usize| {
            (0..frames).for_each(|_| unread.push(frame(30)));
            let held = unread.tail.capacity();
            while unread.pop().is_some() {}
            held
        };
        assert_eq!(wait(2), FIRST);
        assert!(wait(200) <= 8 << 10);
        let most = (0..100).map(|_| wait(100)).max();
        // `BytesMut` takes twice as much where it grows what is there.
        assert!(most.is_some_and(|most| (8 << 10..=2 * PIECE).contains(&most)), "{most:?}");
    }
}
