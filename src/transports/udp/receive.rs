//! Receiving in batches, without memory of its own for each socket or each datagram.
//!
//! The kernel writes into large buffers that belong to the thread: one system call fills up to [`BATCH_SIZE`] of them,
//! and generic receive offload may put up to 64 datagrams of one sender and size into each (`UDP_GRO`, udp(7)). They
//! have room for the longest there can be, so nothing is ever cut. What came is copied to where it is used, many small
//! datagrams into one piece of memory, which is used again once all of them are gone. Those of one sender and one size that
//! came in a row are laid side by side, as if the kernel had joined them: whoever speaks has mostly more than one thing to
//! say, and who it is need be found out once.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};

use bytes::Bytes;
use quinn_udp::{BATCH_SIZE, RecvMeta};

use crate::transports::arena::Arena;

/// No datagram is longer, and neither is what the kernel joins to one (`GRO_LEGACY_MAX_SIZE`).
const BUFFER_SIZE: usize = 64 * 1024;

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::default());
}

#[derive(Default)]
struct Buffers {
    /// 2 MiB of addresses, of which the kernel provides only the pages that are written to: as a rule one or two for
    /// each buffer.
    incoming: Vec<u8>,
    metas: Vec<RecvMeta>,
    arena: Arena,
}

/// Runs one receiving system call and hands on what it brought. Datagrams of one sender and one size are joined; [`split`]
/// takes them apart. Returns how many buffers were filled: fewer than [`BATCH_SIZE`] means that there was no more.
pub(super) fn receive(
    call: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> io::Result<usize>,
    mut deliver: impl FnMut(&RecvMeta, Bytes),
) -> io::Result<usize> {
    BUFFERS.with_borrow_mut(|Buffers { incoming, metas, arena }| {
        if incoming.is_empty() {
            // Not `resize`, which would write to every page.
            *incoming = vec![0; BATCH_SIZE * BUFFER_SIZE];
            *metas = vec![RecvMeta::default(); BATCH_SIZE];
        }
        // In a loop of its own: within `from_fn` the compiler writes it out for each buffer, which comes to 9 KiB of machine
        // code, a good part of what the processor's cache holds.
        let mut slices: [_; BATCH_SIZE] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        for (slice, buffer) in slices.iter_mut().zip(incoming.chunks_exact_mut(BUFFER_SIZE)) {
            *slice = IoSliceMut::new(buffer);
        }
        let count = call(&mut slices, metas)?;
        let metas = &metas[..count];
        arena.make_room(metas.iter().map(|meta| meta.len).sum());
        let mut filled = slices.iter().zip(metas).peekable();
        while let Some((buffer, first)) = filled.next() {
            arena.add(&buffer[..first.len]);
            let mut last = first;
            while let Some((buffer, next)) = filled.next_if(|(_, next)| goes_on(last, next)) {
                arena.add(&buffer[..next.len]);
                last = next;
            }
            deliver(first, arena.take());
        }
        Ok(count)
    })
}

/// Whether that is more of the same: from whoever sent the last, to where that was sent, and of its size.
fn goes_on(last: &RecvMeta, next: &RecvMeta) -> bool {
    let is_whole = last.len > 0 && (last.len == last.stride || last.len.is_multiple_of(last.stride));
    is_whole
        && next.stride == last.stride
        && next.addr == last.addr
        && next.dst_ip == last.dst_ip
        && next.interface_index == last.interface_index
}

/// Takes joined datagrams apart. All have the size `stride`, but for the last, which may be shorter; an empty one comes
/// alone.
pub(super) fn split(mut joined: Bytes, stride: usize, mut deliver: impl FnMut(Bytes)) {
    let stride = stride.max(1);
    while joined.len() > stride {
        deliver(joined.split_to(stride));
    }
    deliver(joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(size: usize, stride: usize) -> Vec<usize> {
        let mut sizes = Vec::new();
        split(Bytes::from(vec![0; size]), stride, |piece| sizes.push(piece.len()));
        sizes
    }

    #[test]
    fn joined_datagrams_are_split_by_their_stride() {
        for (size, stride, expected) in [
            (0, 0, vec![0]),
            (5, 5, vec![5]),
            (10, 5, vec![5, 5]),
            (12, 5, vec![5, 5, 2]),
            (5, 1500, vec![5]),
            (3, 0, vec![1, 1, 1]),
        ] {
            assert_eq!(pieces(size, stride), expected, "{size} by {stride}");
        }
    }

    /// Stands for the system call: writes each text to a buffer, as if it came from that port in pieces of that size.
    fn brings<'a>(
        texts: &'a [(u16, usize, &'a str)],
    ) -> impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> io::Result<usize> {
        move |buffers, metas| {
            for ((buffer, meta), (port, stride, text)) in buffers.iter_mut().zip(metas).zip(texts) {
                buffer[..text.len()].copy_from_slice(text.as_bytes());
                (meta.len, meta.stride) = (text.len(), *stride);
                meta.addr.set_port(*port);
            }
            Ok(texts.len())
        }
    }

    #[test]
    fn what_one_sender_sent_in_a_row_in_one_size_is_handed_on_in_one_piece() {
        let came = [
            (1, 2, "ab"),
            (1, 2, "cd"),
            (2, 2, "ef"),
            (1, 2, "gh"),
            (1, 3, "ijk"),
            (1, 3, "lmnop"),
            (1, 3, "qrs"),
            (1, 0, ""),
            (1, 0, ""),
            (1, 1, "t"),
        ];
        let mut pieces = Vec::new();
        receive(brings(&came), |meta, payload| pieces.push((meta.addr.port(), meta.stride, payload))).unwrap();
        let expected = [
            (1, 2, "abcd"),
            (2, 2, "ef"),
            (1, 2, "gh"),
            // A shorter one ends it.
            (1, 3, "ijklmnop"),
            (1, 3, "qrs"),
            (1, 0, ""),
            (1, 0, ""),
            (1, 1, "t"),
        ];
        assert_eq!(pieces, expected.map(|(port, stride, text)| (port, stride, Bytes::from(text))));
    }

    #[test]
    fn every_buffer_has_room_for_the_longest_datagram() {
        let check = |buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]| {
            assert_eq!((buffers.len(), metas.len()), (BATCH_SIZE, BATCH_SIZE));
            assert!(buffers.iter().all(|buffer| buffer.len() == 65_536));
            Ok(0)
        };
        assert_eq!(receive(check, |_, _| panic!("nothing came")).unwrap(), 0);
    }

    #[test]
    fn what_came_stays_as_it_is_while_more_comes() {
        let mut kept = Vec::new();
        for round in 0..2000_u32 {
            let text = round.to_string();
            let came = [(1, text.len(), &*text), (1, 0, ""), (2, 1, "x")];
            receive(brings(&came), |_, payload| kept.push(payload)).unwrap();
        }
        for (round, came) in kept.chunks(3).enumerate() {
            assert_eq!(came, [round.to_string().as_bytes(), b"", b"x"]);
        }
    }

    #[test]
    fn an_error_of_the_call_is_handed_on() {
        let fails = |_: &mut [IoSliceMut<'_>], _: &mut [RecvMeta]| Err(io::ErrorKind::ConnectionRefused.into());
        let error = receive(fails, |_, _| panic!("nothing came")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
