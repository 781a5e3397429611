//! What a session adds to a message, over a link that costs nothing: reads of one line and of sixteen, answered.
//!
//!     cargo bench -p greetd-bench --bench session

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use criterion::{Criterion, Throughput};
use greetd::framings::lines::Lines;
use greetd::handlers::hello::Hello;
use greetd::{Address, Capabilities, Handler, Link, Opened, Peer, Route, Session};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gives the same lines at each other read, and nothing in between; takes whatever is written.
struct Parrot {
    lines: Vec<u8>,
    says: bool,
}

impl AsyncRead for Parrot {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.says = !self.says;
        if !self.says {
            return Poll::Pending;
        }
        buffer.put_slice(&self.lines);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Parrot {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn session(criterion: &mut Criterion) {
    for lines in [1_usize, 16] {
        let route = Route {
            scheme: "tcp".into(),
            framing: Some("lines".into()),
            capabilities: Capabilities::BYTES,
            keeps_messages: true,
        };
        let link = Link::Bytes(Box::new(Parrot { lines: b"0123456789abcdef\n".repeat(lines), says: false }));
        let opened = Opened { link, peer: Peer::new(Address::Unnamed, Address::Unnamed, Arc::new(route)) };
        let mut session = Session::new(opened, Some(Arc::new(Lines { longest: 8192 }))).expect("it has a framing");
        let hello = Hello::default();
        let mut conversation = hello.serve(&mut session);
        let mut cx = Context::from_waker(Waker::noop());

        let mut group = criterion.benchmark_group("session");
        group.throughput(Throughput::Elements(lines as u64));
        group.bench_function(format!("{lines} lines a read"), |bencher| {
            bencher.iter(|| assert!(conversation.as_mut().poll(&mut cx).is_pending()));
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    session(&mut criterion);
    criterion.final_summary();
}
