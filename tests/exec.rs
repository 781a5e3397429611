//! `exec:`: a program for each session, what it is given, what it does to others, and what is left of it.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;
#[path = "support/plugins.rs"]
#[expect(dead_code, reason = "each of the tests of plugins needs a part of it")]
mod plugins;

use std::path::PathBuf;
use std::time::Duration;

use command::is_there;
use greetd::Registry;
use plugins::*;

#[tokio::test]
async fn a_program_for_each_session_greets_over_every_transport() {
    if is_there("python3") {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::builtin();
        let handler = format!("exec:{}", sample("exec/hello.py").display());
        for endpoint in endpoints(&registry, folder.path()) {
            greets(&registry, &endpoint, &handler).await;
        }
    }
}

#[tokio::test]
async fn a_program_for_each_session_is_told_who_calls_and_sees_nothing_else() {
    if is_there("python3") {
        let registry = Registry::builtin();
        // A descriptor that would pass on to any child, as one that was inherited does.
        let passed_on = std::fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&passed_on, rustix::io::FdFlags::empty()).unwrap();
        let script = "import os\n\
                      print(sorted(os.environ.items()), sorted(os.listdir('/proc/self/fd')), os.getpgrp() == os.getpid())";
        let served = Served::at(&registry, "tcp://127.0.0.1:0", &format!("exec:python3 -c \"{script}\"")).await;
        let mut session = served.call().await;
        let mine = session.peer().local.ip().unwrap().port();
        let port = served.endpoint.to_string();
        let port = port.trim_start_matches("tcp://127.0.0.1:").split('?').next().unwrap();
        // os.listdir itself holds descriptor 3.
        let wanted = format!(
            "[('GREETD_CONNECTED', 'yes'), ('LANG', 'C.UTF-8'), ('PATH', '/usr/local/bin:/usr/bin:/bin'), \
             ('PROTO', 'TCP'), ('REMOTE_ADDR', '127.0.0.1'), ('REMOTE_PORT', '{mine}'), ('TCPLOCALIP', '127.0.0.1'), \
             ('TCPLOCALPORT', '{port}'), ('TCPREMOTEIP', '127.0.0.1'), ('TCPREMOTEPORT', '{mine}')] \
             ['0', '1', '2', '3'] True\n"
        );
        hears(&mut session, &wanted).await;
        sees_the_end(&mut session).await;
        served.ends().await;
    }
}

#[tokio::test]
async fn a_program_that_reads_lines_serves_datagrams_too() {
    let registry = Registry::builtin();
    let script = "while read -r name; do echo \"Hello,$name\"; done".replace(' ', "%20");
    let served =
        Served::at(&registry, "udp://127.0.0.1:0", &format!("exec?lines=yes&command=bash%20-c%20'{script}'")).await;
    let mut session = served.call().await;
    says(&mut session, "Genji").await;
    hears(&mut session, "Hello,Genji").await;
    served.running.drain(PATIENCE).await;
}

#[tokio::test]
async fn what_a_program_started_dies_with_its_session() {
    let registry = Registry::builtin();
    let served = Served::at(&registry, "tcp://127.0.0.1:0", "exec:sh -c 'sleep 1000 & echo $!; wait'").await;
    let mut session = served.call().await;
    let process = within("the number", session.recv()).await.unwrap().unwrap();
    let process = PathBuf::from("/proc").join(String::from_utf8(process.to_vec()).unwrap().trim()).join("stat");
    assert!(process.exists());
    served.running.drain(Duration::ZERO).await;
    let gone = || std::fs::read_to_string(&process).map_or(true, |stat| stat.contains(") Z "));
    within("the end of the grandchild", async {
        while !gone() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
