//! What it costs to read an endpoint, and to find in the registry what it names.
//!
//!     cargo bench -p greetd-bench --bench names

use std::hint::black_box;

use criterion::Criterion;
use greetd::{Endpoint, Registry};

const ENDPOINT: &str = "tcp://127.0.0.1:8080?framing=lines&idle-timeout=30s&max-message=64KiB";

fn names(criterion: &mut Criterion) {
    criterion.bench_function("endpoint/parse", |bencher| {
        bencher.iter(|| black_box(ENDPOINT).parse::<Endpoint>().expect("it is one"));
    });
    let registry = Registry::builtin();
    let endpoint: Endpoint = ENDPOINT.parse().expect("it is one");
    criterion.bench_function("registry/service", |bencher| {
        bencher.iter(|| registry.service(black_box(&endpoint), "hello?word=Hi").expect("all of it is known"));
    });
    criterion.bench_function("registry/builtin", |bencher| bencher.iter(Registry::builtin));
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    names(&mut criterion);
    criterion.final_summary();
}
