//! The experiments. Each one predicts first; running it fills in what the kernel did.

mod backlog;
mod conflict;
mod delivery;
mod errno;
mod reach;
mod reuseport;
mod timewait;
mod udp_reply;

use std::io;

use super::ground::Ground;
use super::report::{BINDS, CALLS, Report, Section};

/// A table's worth of cases, several times.
type Sections = Vec<Section>;

macro_rules! experiments {
    ($($(#[$doc:meta])* $variant:ident $module:ident $name:literal $title:literal;)*) => {
        /// An experiment, by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Experiment {
            $(
                #[doc = $title]
                $variant,
            )*
        }

        impl Experiment {
            /// All of them, in the order of the lesson.
            pub const ALL: &'static [Experiment] = &[$(Experiment::$variant,)*];

            /// The name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Experiment::$variant => $name,)* }
            }

            /// What it asks, in one line.
            pub fn title(self) -> &'static str {
                match self { $(Experiment::$variant => $title,)* }
            }

            fn about(self) -> &'static str {
                match self { $(Experiment::$variant => $module::ABOUT,)* }
            }

            fn sections(self) -> Sections {
                match self { $(Experiment::$variant => $module::predict(),)* }
            }

            fn fill(self, ground: &Ground, sections: &mut Sections) -> io::Result<()> {
                match self { $(Experiment::$variant => $module::run(ground, sections),)* }
            }
        }
    };
}

experiments! {
    Reach reach "reach" "What does a bind really reach?";
    Conflict conflict "conflict" "Which second bind succeeds?";
    Backlog backlog "backlog" "How many connect while nobody accepts?";
    TimeWait timewait "timewait" "Who may bind again after whose close?";
    ReusePort reuseport "reuseport" "Who of a group gets what, and what does a close lose?";
    Delivery delivery "delivery" "Which of several matching sockets gets the packet?";
    UdpReply udp_reply "udp-reply" "From which address does a UDP server answer?";
    Errno errno "errno" "What does each obstacle look like to a client?";
}

impl Experiment {
    /// What the model says; opens no socket.
    pub fn predict(self) -> Report {
        Report {
            experiment: self.name(),
            title: self.title(),
            about: self.about(),
            legend: if matches!(self, Experiment::Conflict | Experiment::TimeWait) { BINDS } else { CALLS },
            kernel: None,
            limits: Vec::new(),
            sections: self.sections(),
            closing: None,
        }
    }

    /// Predicts, tries it on that ground, and puts both side by side.
    ///
    /// # Errors
    /// Where the experiment itself failed: not one of the calls that it looks at, but one that it needs.
    pub fn run(self, ground: &Ground) -> io::Result<Report> {
        let mut report = self.predict();
        self.fill(ground, &mut report.sections)?;
        report.kernel = Some(kernel());
        report.limits.extend(ground.limits());
        Ok(report)
    }
}

/// The kernel that is running, as `uname -sr` says it.
pub fn kernel() -> String {
    let name = rustix::system::uname();
    format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
}
