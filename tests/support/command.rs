//! The real binary, run as a person or a script would.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Long enough that only what hangs takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// What a failing command says first.
    pub(crate) fn verdict(&self) -> &str {
        self.stderr.split(':').next().unwrap_or_default()
    }

    /// The one object on stdout.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.lines().count(), 1, "one object on one line: {self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs greetd to its end, with nothing to read on stdin.
pub(crate) fn greetd(arguments: &[&str]) -> Ran {
    greetd_reading(b"", arguments)
}

/// Runs greetd to its end, with that on stdin.
pub(crate) fn greetd_reading(stdin: &[u8], arguments: &[&str]) -> Ran {
    let (code, stdout, stderr) = bytes_of(stdin, arguments);
    Ran { code, stdout: String::from_utf8(stdout).unwrap(), stderr }
}

/// The same for output that is no text.
pub(crate) fn bytes_of(stdin: &[u8], arguments: &[&str]) -> (i32, Vec<u8>, String) {
    run(command(arguments), stdin)
}

/// The binary with these arguments, whatever the environment of the tests says of colours.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greetd"));
    command.args(arguments).env_remove("NO_COLOR");
    command
}

/// Runs any command to its end.
pub(crate) fn run(mut command: Command, stdin: &[u8]) -> (i32, Vec<u8>, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("it is piped");
    let stdin = stdin.to_vec();
    // In a thread of its own: whoever does not read must not stop the test. A command that ends early has no reader.
    std::thread::spawn(move || drop(input.write_all(&stdin)));
    let pid = child.id();
    let (done, output) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(PATIENCE) else {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        panic!("{command:?} did not end");
    };
    let output = output.expect("it can be waited for");
    (code(output.status), output.stdout, String::from_utf8(output.stderr).expect("messages are text"))
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| panic!("it was killed: {status}"))
}

/// A daemon that is killed with the test.
pub(crate) struct Daemon {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Daemon {
    /// Starts greetd with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Daemon::spawn(command(arguments))
    }

    /// Starts a program of `tests/programs`; `None` without Python.
    pub(crate) fn python(program: &str) -> Option<Self> {
        Some(Daemon::spawn(python(program)?))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        Daemon { child, stdout, stderr }
    }

    /// The next line on stdout, without its end.
    pub(crate) fn line(&mut self) -> String {
        let _patience = Patience::with(self.pid());
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("stdout can be read");
        assert!(line.ends_with('\n'), "no line on stdout, but {line:?}; stderr: {}", self.rest_of_stderr(&line));
        line.trim_end().to_owned()
    }

    fn rest_of_stderr(&mut self, line: &str) -> String {
        let mut rest = String::new();
        if line.is_empty() {
            let _ = self.stderr.read_to_string(&mut rest);
        }
        rest
    }

    /// The endpoint in the next `listening` line.
    pub(crate) fn endpoint(&mut self) -> String {
        let line = self.line();
        let words: Vec<_> = line.split(' ').collect();
        assert!(words.len() == 3 && words[0] == "listening" && words[2].starts_with("handler="), "{line}");
        words[1].to_owned()
    }

    /// Reads stderr up to a line that contains the text.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let _patience = Patience::with(self.pid());
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.stderr.read_line(&mut line).expect("stderr can be read") > 0, "it never said {text:?}");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Starts greetd with one listener on an IP address, and waits until it is ready.
    pub(crate) fn serving(arguments: &[&str]) -> (Self, SocketAddr) {
        let mut daemon = Daemon::start(arguments);
        let address = daemon.address();
        (daemon, address)
    }

    /// The address in the next `listening` line.
    pub(crate) fn address(&mut self) -> SocketAddr {
        let endpoint = self.endpoint();
        endpoint.split_once("://").expect("it is an endpoint").1.parse().expect("it is an IP address")
    }

    /// The memory of its own that it has in RAM, in KiB, from /proc; the program itself, of which more is read in as
    /// more of it runs, does not count.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("proc_pid_status(5)");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("proc_pid_status(5)")
    }

    /// The processor time that it has used so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        // After the name in parentheses: utime and stime are the 14th and 15th fields of all; proc_pid_stat(5).
        let after_name = stat.rsplit_once(')').expect("proc_pid_stat(5)").1;
        let ticks: u32 =
            after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().expect("there is a clock");
        Duration::from_secs_f64(f64::from(ticks) / f64::from(u32::try_from(per_second).expect("it ticks")))
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it is running").count()
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("it is running")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it is running");
    }

    /// Tells it to stop, and waits until it has; what it says until then comes back too.
    pub(crate) fn stop(mut self) -> Ran {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits until it ends.
    pub(crate) fn wait(&mut self) -> Ran {
        let _patience = Patience::with(self.pid());
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).expect("stdout is text");
        self.stderr.read_to_string(&mut stderr).expect("stderr is text");
        Ran { code: code(self.child.wait().expect("it can be waited for")), stdout, stderr }
    }
}

/// Kills a daemon that says nothing for too long, so that a test which waits for its words fails rather than hangs.
struct Patience(#[expect(dead_code, reason = "that it is dropped is what tells")] mpsc::Sender<()>);

impl Patience {
    fn with(pid: u32) -> Self {
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            if is_done.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
        });
        Patience(done)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks again and again until something holds that nothing tells of.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Python with a program of `tests/programs`. Where there is none, a word on stderr says what the test leaves out; with
/// `GREETD_REQUIRE_TOOLS` set the test fails instead.
pub(crate) fn python(program: &str) -> Option<Command> {
    let mut command = tool("python3")?;
    command.arg(format!("{}/tests/programs/{program}", env!("CARGO_MANIFEST_DIR")));
    Some(command)
}

/// A program of the machine, where there is one.
pub(crate) fn tool(name: &str) -> Option<Command> {
    match Command::new(name).arg("--help").stdin(Stdio::null()).output() {
        Ok(_) => Some(Command::new(name)),
        Err(error) => left_out(&format!("{name}: {error}")),
    }
}

/// Whether a program of the machine is there.
pub(crate) fn is_there(name: &str) -> bool {
    tool(name).is_some()
}

/// Says what a test leaves out, and fails where nothing may be.
pub(crate) fn left_out<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("GREETD_REQUIRE_TOOLS").is_none(), "{why}");
    eprintln!("left out: {why}");
    None
}
