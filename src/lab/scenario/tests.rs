//! The scenarios that ship, others at random, and the shape of the answer.

use super::*;
use crate::lab::testing;
use crate::random::Random;

/// The scenarios that ship.
fn shipped() -> Vec<(String, Scenario)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/lab");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension != "md"));
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let is_toml = path.extension().is_some_and(|extension| extension == "toml");
            let format = if is_toml { Format::Toml } else { Format::Json };
            let scenario = Scenario::parse(&std::fs::read_to_string(&path).unwrap(), format);
            (path.display().to_string(), scenario.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        })
        .collect()
}

fn faults(name: &str, result: &ScenarioResult) -> Vec<String> {
    let mut faults = Vec::new();
    for case in &result.cases {
        for step in &case.steps {
            let differs = step.observed.is_some() && step.predicted.is_some() && step.observed != step.predicted;
            if !step.as_expected || differs {
                faults.push(format!("{name} {}: {step:?}", case.id));
            }
        }
    }
    faults
}

#[test]
fn the_model_alone_says_of_every_shipped_scenario_what_its_author_expects() {
    for (name, scenario) in shipped() {
        let faults = faults(&name, &scenario.predict());
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

#[test]
fn the_kernel_does_in_every_shipped_scenario_what_its_author_and_the_model_expect() {
    if testing::topology().is_none() {
        return;
    }
    for (name, scenario) in shipped() {
        let result = scenario.run(|_| {}).unwrap();
        let faults = faults(&name, &result);
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        assert_eq!(result.verdict(), Verdict::Ok);
    }
}

/// Binds, listens, changes and closes at random, all on one port of one host.
fn at_random(random: &mut Random) -> String {
    const ADDRESSES: [&str; 12] = [
        "127.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "198.51.100.1",
        "203.0.113.1",
        "::1",
        "::",
        "2001:db8:1::1",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:198.51.100.1",
        "fe80::1%eth0",
    ];
    let mut steps = Vec::new();
    for number in 0..4 + random.below(6) {
        let socket = format!("s{}", if steps.is_empty() { 0 } else { random.below(number + 1) });
        let mut step = match random.below(8) {
            0 => json!({ "op": "listen", "socket": socket }),
            1 => json!({ "op": "close", "socket": socket }),
            2 => json!({ "op": "set", "socket": socket, "reuse_addr": random.below(2) == 1 }),
            3 => json!({ "op": "set", "socket": socket, "reuse_port": random.below(2) == 1 }),
            _ => json!({ "op": "bind", "socket": format!("s{number}"), "address": ADDRESSES[random.below(12)] }),
        };
        if step["op"] == "bind" {
            for option in ["reuse_addr", "reuse_port", "v6_only"] {
                if random.below(2) == 1 {
                    step[option] = json!(random.below(4) > 0);
                }
            }
            if random.below(8) == 0 {
                step["device"] = json!(["lo", "eth0", "eth1"][random.below(3)]);
            }
        }
        steps.push(step);
    }
    let proto = ["tcp", "udp"][random.below(2)];
    json!({ "cases": [{ "id": "random", "proto": proto, "steps": steps }] }).to_string()
}

#[test]
fn the_kernel_does_what_the_model_predicts_in_scenarios_that_nobody_thought_of() {
    if testing::topology().is_none() {
        return;
    }
    for seed in 0..60 {
        let text = at_random(&mut Random::new(seed));
        let result = Scenario::parse(&text, Format::Json).unwrap().run(|_| {}).unwrap();
        let faults = faults(&format!("seed {seed}"), &result);
        assert!(faults.is_empty(), "{text}\n{}", faults.join("\n"));
    }
}

#[test]
fn the_answer_has_the_shape_that_others_rely_on() {
    let text = r#"{"cases": [{"id": "x", "steps": [
        {"op": "bind", "socket": "a", "address": "0.0.0.0", "expect": "EADDRINUSE"},
        {"op": "listen", "socket": "nobody"}]}]}"#;
    let object = Scenario::parse(text, Format::Json).unwrap().predict().as_json();
    let step = &object["cases"][0]["steps"][0];
    assert_eq!(object["verdict"], "failed");
    assert_eq!(step["op"], "bind");
    assert_eq!(step["socket"], "a");
    assert_eq!(step["predicted"], "ok");
    assert_eq!(step["rule"], "no-overlap");
    assert_eq!(step["as_expected"], false);
    assert_eq!(object["cases"][0]["steps"][1]["observed"], Value::Null);
}
