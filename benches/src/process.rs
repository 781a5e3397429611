//! Servers and load clients as processes, each on a processor of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::statistics::Summary;

/// Words of a command line, the program first.
#[derive(Debug, Clone)]
pub(crate) struct Line(Vec<std::ffi::OsString>);

impl Line {
    pub(crate) fn new(program: PathBuf, arguments: &[&str]) -> Self {
        let mut words = vec![program.into_os_string()];
        words.extend(arguments.iter().map(Into::into));
        Line(words)
    }

    pub(crate) fn and(&self, argument: &impl ToString) -> Self {
        let mut line = self.clone();
        line.0.push(argument.to_string().into());
        line
    }

    /// With the word `PORT` replaced.
    pub(crate) fn with_port(&self, port: u16) -> Self {
        let word = |word: &std::ffi::OsString| if word == "PORT" { port.to_string().into() } else { word.clone() };
        Line(self.0.iter().map(word).collect())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]);
        command
    }
}

/// Which processor a process runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum On {
    /// The first that this process may use.
    Server,
    /// The second.
    Client,
}

/// Lets this process, and with it its children, open as many descriptors as the system allows.
pub(crate) fn raise_descriptors() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// Starts a child there: it inherits where this thread runs.
fn start(command: &mut Command, on: On) -> Result<Child> {
    let here = Pid::from_raw(0);
    let all = sched_getaffinity(here)?;
    let allowed: Vec<usize> = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false)).collect();
    let [server, client, ..] = allowed[..] else { bail!("the server and the client need a processor each") };
    let mut set = CpuSet::new();
    set.set(match on {
        On::Server => server,
        On::Client => client,
    })?;
    sched_setaffinity(here, &set)?;
    let child = command.spawn().with_context(|| format!("failed to start {command:?}"));
    sched_setaffinity(here, &all)?;
    child
}

/// A server that is ready. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    /// How long it took until it said that it listens.
    pub(crate) ready_after: Duration,
}

impl Server {
    pub(crate) fn start(line: &Line, on: On) -> Result<Self> {
        let begun = Instant::now();
        let child = start(line.command().stdout(Stdio::piped()).stderr(Stdio::null()), on)?;
        let mut server = Server { child, port: 0, ready_after: Duration::ZERO };
        let mut readiness = String::new();
        BufReader::new(server.child.stdout.take().context("its stdout is a pipe")?).read_line(&mut readiness)?;
        server.ready_after = begun.elapsed();
        let address = readiness.strip_prefix("listening ").and_then(|rest| rest.split(' ').next());
        let port = address.and_then(|address| address.rsplit(':').next()).and_then(|port| port.parse().ok());
        server.port = port.with_context(|| format!("{line:?} said `{readiness}`, not where it listens"))?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory of its own, in bytes: `RssAnon` of proc_pid_status(5).
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kib =
            status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse().ok());
        Ok(1024 * kib.unwrap_or(0_u64))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a load client said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) messages: f64,
    pub(crate) seconds: f64,
    pub(crate) cpu_ns: f64,
    pub(crate) wrong: f64,
    pub(crate) lost: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Outcome {
    /// What a round comes to that was measured in pieces: their sums, and the medians of what is no sum.
    pub(crate) fn of(pieces: &[Outcome]) -> Self {
        let sum = |what: fn(&Outcome) -> f64| pieces.iter().map(what).sum();
        let middle = |what: fn(&Outcome) -> f64| Summary::of(pieces.iter().map(what)).median;
        Outcome {
            messages: sum(|piece| piece.messages),
            seconds: sum(|piece| piece.seconds),
            cpu_ns: sum(|piece| piece.cpu_ns),
            wrong: sum(|piece| piece.wrong),
            lost: sum(|piece| piece.lost),
            p50_us: middle(|piece| piece.p50_us),
            p99_us: middle(|piece| piece.p99_us),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let mut outcome = Outcome::default();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').with_context(|| format!("`{word}` is no result"))?;
            let value = value.parse()?;
            match name {
                "messages" => outcome.messages = value,
                "seconds" => outcome.seconds = value,
                "cpu_ns" => outcome.cpu_ns = value,
                "wrong" => outcome.wrong = value,
                "lost" => outcome.lost = value,
                "p50_us" => outcome.p50_us = value,
                "p99_us" => outcome.p99_us = value,
                _ => bail!("`{name}` is no known result"),
            }
        }
        ensure!(outcome.messages > 0.0, "nothing was answered: `{text}`");
        Ok(outcome)
    }
}

/// Runs a load client to its end.
pub(crate) fn load(line: &Line) -> Result<Outcome> {
    let child = start(line.command().stdout(Stdio::piped()), On::Client)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{line:?} failed");
    Outcome::parse(&String::from_utf8_lossy(&output.stdout))
}

/// Runs a load client, and counts the system calls of the server meanwhile; none where `perf` cannot.
pub(crate) fn load_counting_calls(line: &Line, server: &Server) -> Result<Option<f64>> {
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p"]).arg(server.pid().to_string()).arg("--");
    perf.args(&line.0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(child) = start(&mut perf, On::Client) else { return Ok(None) };
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let calls = said.lines().find_map(|line| line.split(',').next()?.parse::<f64>().ok());
    let Some(calls) = calls.filter(|_| output.status.success()) else { return Ok(None) };
    Ok(Some(calls / Outcome::parse(&String::from_utf8_lossy(&output.stdout))?.messages))
}

/// Connections that are held open until this is dropped.
pub(crate) struct Held(Child);

impl Held {
    /// Starts the client and waits until it says that it holds them.
    pub(crate) fn start(line: &Line) -> Result<Self> {
        let mut held = Held(start(line.command().stdin(Stdio::piped()).stdout(Stdio::piped()), On::Client)?);
        let mut said = String::new();
        BufReader::new(held.0.stdout.take().context("its stdout is a pipe")?).read_line(&mut said)?;
        ensure!(said == "held\n", "{line:?} could not hold its connections");
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            let _ = stdin.flush();
        }
        let _ = self.0.wait();
    }
}

/// The first line that a program prints.
pub(crate) fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut said = String::new();
    child.stdout.take()?.read_to_string(&mut said).ok()?;
    child.wait().ok()?;
    said.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_the_sum_of_its_pieces_and_the_middle_of_their_latencies() {
        let piece = |messages: f64, p50_us| Outcome { messages, cpu_ns: 10.0 * messages, p50_us, ..Outcome::default() };
        let round = Outcome::of(&[piece(1.0, 5.0), piece(2.0, 900.0), piece(3.0, 7.0)]);
        assert_eq!((round.messages, round.cpu_ns, round.p50_us), (6.0, 60.0, 7.0));
    }
}
