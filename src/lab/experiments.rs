//! The experiments. Each one predicts first; running it fills in what the kernel did.

mod conflict;
mod reach;

use std::io;

use super::ground::Ground;
use super::report::{Report, Section};

/// An experiment, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Experiment {
    /// Who reaches what.
    Reach,
    /// Which second bind succeeds.
    Conflict,
}

impl Experiment {
    /// All of them, in the order of the lesson.
    pub const ALL: &'static [Experiment] = &[Experiment::Reach, Experiment::Conflict];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Experiment::Reach => "reach",
            Experiment::Conflict => "conflict",
        }
    }

    /// What it asks, in one line.
    pub fn title(self) -> &'static str {
        match self {
            Experiment::Reach => "What does a bind really reach?",
            Experiment::Conflict => "Which second bind succeeds?",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Experiment::Reach => reach::ABOUT,
            Experiment::Conflict => conflict::ABOUT,
        }
    }

    /// What the model says; opens no socket.
    pub fn predict(self) -> Report {
        let sections = match self {
            Experiment::Reach => reach::predict(),
            Experiment::Conflict => conflict::predict(),
        };
        Report {
            experiment: self.name(),
            title: self.title(),
            about: self.about(),
            kernel: None,
            limits: Vec::new(),
            sections,
        }
    }

    /// Predicts, tries it on that ground, and puts both side by side.
    ///
    /// # Errors
    /// Where the experiment itself failed: not one of the calls that it looks at, but one that it needs.
    pub fn run(self, ground: &Ground) -> io::Result<Report> {
        let mut report = self.predict();
        let sections = &mut report.sections;
        match self {
            Experiment::Reach => reach::run(ground, sections)?,
            Experiment::Conflict => conflict::run(ground, sections)?,
        }
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

/// A table's worth of cases.
type Sections = Vec<Section>;
