//! A [`Host`] is a network namespace with a thread in it that does what it is told.
//!
//! A socket belongs for good to the namespace of the thread that made it, so only making a socket (and reading
//! `/proc/sys/net`) has to happen in there: once made, a socket can be used from any thread.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use super::isolation::{Unavailable, errno_of, unavailable};

type Job = Box<dyn FnOnce() + Send>;

/// A host of the lab. Dropping it ends its thread; the namespace goes when the last socket made in it is closed.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: File,
    /// `None` only while it is dropped.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// A host in a new network namespace, with nothing in it but a loopback device that is down.
    ///
    /// # Errors
    /// [`Unavailable`] where the kernel allows no new namespace; [`isolation::enter`](super::isolation::enter) may
    /// help.
    pub fn isolated(name: &str) -> Result<Self, Unavailable> {
        Host::start(name, || unshare(CloneFlags::CLONE_NEWNET))
    }

    /// A further thread in the namespace of this host, for work that would keep the first one busy.
    ///
    /// # Errors
    /// [`Unavailable`] where no thread can be had, or the namespace cannot be entered.
    pub fn helper(&self) -> Result<Self, Unavailable> {
        let namespace = self.namespace.try_clone().map_err(|error| unavailable("dup", errno_of(&error)))?;
        Host::start(&self.name, move || setns(&namespace, CloneFlags::CLONE_NEWNET))
    }

    /// This machine itself, in the namespace in which the process runs.
    ///
    /// # Errors
    /// [`Unavailable`] where no thread can be had.
    pub fn this_machine(name: &str) -> Result<Self, Unavailable> {
        Host::start(name, || Ok(()))
    }

    fn start(name: &str, enter: impl FnOnce() -> Result<(), Errno> + Send + 'static) -> Result<Self, Unavailable> {
        let (jobs, work) = channel::<Job>();
        let (ready, entered) = channel();
        let thread = Builder::new()
            .name(format!("lab-{name}"))
            .spawn(move || {
                let opened = enter().and_then(|()| open_own_namespace());
                let go_on = opened.is_ok();
                // Nobody listens any more if the caller is gone, and then there is nothing to do either.
                let told = ready.send(opened).is_ok();
                if go_on && told {
                    work_off(&work);
                }
            })
            .map_err(|error| unavailable("starting a thread", errno_of(&error)))?;
        let namespace = entered
            .recv()
            .unwrap_or(Err(Errno::EAGAIN))
            .map_err(|errno| unavailable("entering a network namespace", errno))?;
        Ok(Host { name: name.to_owned(), namespace, jobs: Some(jobs), thread: Some(thread) })
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace, for whoever moves a device into it.
    pub fn namespace(&self) -> &File {
        &self.namespace
    }

    /// Runs a closure on this host and gives back what it returns. Sockets made in it belong to this host.
    ///
    /// # Panics
    /// Where the closure does.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(job));
            // The caller waits below, so somebody listens.
            let _ = answer.send(result);
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        match answered.recv() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => unreachable!("a host's thread outlives the host: job sent: {sent}"),
        }
    }

    /// The number of a device on this host.
    ///
    /// # Errors
    /// What `if_nametoindex` says: there is none of that name.
    pub fn index_of(&self, device: &str) -> io::Result<u32> {
        let device = device.to_owned();
        self.run(move || Ok(nix::net::if_::if_nametoindex(device.as_str())?))
    }

    /// Sets a sysctl of this host's network, such as `net.ipv4.icmp_ratelimit`.
    ///
    /// # Errors
    /// What writing the file below `/proc/sys` says, with its name. A dot inside a device's name is written `/`.
    pub fn sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let value = value.to_owned();
        self.run(move || {
            std::fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
        })
    }

    /// Reads a sysctl of this host's network.
    ///
    /// # Errors
    /// What reading the file below `/proc/sys` says.
    pub fn read_sysctl(&self, name: &str) -> io::Result<String> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(move || Ok(std::fs::read_to_string(path)?.trim().to_owned()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // Jobs cannot panic out of their thread, and there is nobody to tell.
            let _ = thread.join();
        }
    }
}

fn open_own_namespace() -> Result<File, Errno> {
    File::open("/proc/thread-self/ns/net").map_err(|error| errno_of(&error))
}

fn work_off(work: &Receiver<Job>) {
    while let Ok(job) = work.recv() {
        job();
    }
}
