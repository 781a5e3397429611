//! What each framing costs: a message of 16 bytes cut out of a full read, and put into bytes.
//!
//!     cargo bench -p greetd-bench --bench framing

use std::hint::black_box;
use std::sync::Arc;

use bytes::BytesMut;
use criterion::{Criterion, Throughput};
use greetd::Framing;
use greetd::framings::length::{Length, Prefix};
use greetd::framings::lines::Lines;
use greetd::framings::netstring::Netstring;
use greetd::framings::varint::Varint;

const MESSAGES: usize = 256;
const LARGEST: usize = 1 << 20;

fn framings() -> Vec<(&'static str, Arc<dyn Framing>)> {
    vec![
        ("lines", Arc::new(Lines { longest: 8192 })),
        ("length32", Arc::new(Length { prefix: Prefix::U32, largest: LARGEST })),
        ("netstring", Arc::new(Netstring { largest: LARGEST })),
        ("varint", Arc::new(Varint { largest: LARGEST })),
    ]
}

fn framed(framing: &dyn Framing) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..MESSAGES {
        framing.encode(&[b"0123456789abcdef"], &mut bytes).expect("every framing carries this");
    }
    bytes
}

fn framing(criterion: &mut Criterion) {
    for (name, framing) in framings() {
        let bytes = framed(&*framing);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(MESSAGES as u64));
        let mut scratch = BytesMut::with_capacity(bytes.len());
        group.bench_function("decode", |bencher| {
            bencher.iter(|| {
                scratch.reserve(bytes.len());
                scratch.extend_from_slice(&bytes);
                let mut input = scratch.split();
                while let Some(frame) = framing.decode(&input, &mut 0).expect("it was encoded so") {
                    black_box(frame.take(&*framing, &mut input).expect("nothing is escaped"));
                }
            });
        });
        let mut output = Vec::with_capacity(bytes.len());
        group.bench_function("encode", |bencher| {
            bencher.iter(|| {
                output.clear();
                for _ in 0..MESSAGES {
                    framing.encode(&[b"Hello ", b"0123456789"], &mut output).expect("every framing carries this");
                }
                black_box(&output);
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    framing(&mut criterion);
    criterion.final_summary();
}
