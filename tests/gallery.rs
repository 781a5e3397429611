//! The gallery of plugins: each sample is run by the two lines that `plugins/README.md` gives, as they stand but for the
//! address, which is one that is free.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;

use command::is_there;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What is typed for each sample, by the name of its section.
fn samples() -> Vec<(String, Vec<String>)> {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("plugins/README.md")).unwrap();
    let mut samples = Vec::new();
    for part in readme.split("```sh\n").collect::<Vec<_>>().windows(2) {
        let name = part[0].rsplit("**").nth(1).unwrap().to_owned();
        let lines = part[1].split("```").next().unwrap().lines().map(str::to_owned).collect();
        samples.push((name, lines));
    }
    samples
}

/// A server, killed when it is no longer looked at.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A line of the shell, in which `greetd` is the one that was just built.
fn shell(line: &str, folder: &Path) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_greetd"));
    let path = std::env::join_paths(
        [binary.parent().unwrap().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut command = Command::new("sh");
    // `exec`, so that killing the shell kills what it runs.
    let line = line.replace("greetd --", "exec greetd --").replace("plugins/", &format!("{ROOT}/plugins/"));
    command.args(["-c", &line]).current_dir(folder).env("PATH", path.unwrap()).stdin(Stdio::null());
    command
}

#[test]
fn each_sample_runs_with_the_two_lines_of_its_readme() {
    let samples = samples();
    assert_eq!(
        samples.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["python", "shell", "node", "c", "exec", "rust", "wasm-c", "wasm-rust", "wasm-python", "wasm-js"]
    );
    for (name, lines) in samples {
        let [serve, call] = &lines[..] else { panic!("{name} has two lines: {lines:?}") };
        let tool = match name.as_str() {
            // Its own tests run it: tests/gallery.rs must not call the compiler.
            "rust" => continue,
            // Checked in as text; the others want tools that are seldom there, and `.ci/wasm` runs them.
            "wasm-c" if cfg!(feature = "wasm") => "sh",
            name if name.starts_with("wasm-") => continue,
            "c" => "cc",
            "node" => "node",
            "shell" => "bash",
            _ => "python3",
        };
        if !is_there(tool) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().display().to_string();
        let serve =
            if serve.contains("--bind") { serve.replace("/run", &own) } else { format!("{serve} --bind 127.0.0.1:0") };
        let mut server = Server(shell(&serve, folder.path()).stdout(Stdio::piped()).spawn().unwrap());
        let mut listening = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut listening).unwrap();
        let endpoint = listening.split(' ').nth(1).unwrap_or_else(|| panic!("{name} listens: {listening}"));
        let (_, port) = endpoint.rsplit_once(':').unwrap();
        let call = call.replace("/run", &own).replace("8080", port);
        let output = shell(&call, folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let greeting = if endpoint.starts_with("udp") { "Hello,Genji" } else { "Hello Genji" };
        assert!(output.status.success() && said.contains(greeting), "{name}: {call}: {said}{output:?}");
    }
}

#[test]
fn each_sample_is_shorter_than_forty_lines() {
    for path in ["python/hello.py", "python/plain.py", "shell/hello.sh", "node/hello.mjs", "c/hello.c", "exec/hello.py"]
    {
        let text = std::fs::read_to_string(Path::new(ROOT).join("plugins").join(path)).unwrap();
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines < 40, "{path} has {lines} lines");
    }
}
