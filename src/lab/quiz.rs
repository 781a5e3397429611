//! A quiz: what will the kernel do? Questions are cases of an experiment that has not been run yet.

use super::report::{Case, Report, Section, Shown};
use crate::random::Random;

/// The most answers that one may choose from.
const CHOICES: usize = 4;

/// Questions about an experiment.
#[derive(Debug, Clone)]
pub struct Quiz {
    questions: Vec<Question>,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Question {
    /// What is asked, in a sentence.
    pub text: String,
    /// The answers to choose from.
    pub choices: Vec<String>,
    place: Place,
}

/// Where in a report the case is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    section: usize,
    row: usize,
    cell: usize,
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Whether it was right.
    pub right: bool,
    /// What the kernel did.
    pub answer: String,
    /// Why.
    pub why: String,
}

impl Quiz {
    /// So many questions about what a prediction says; the same seed asks the same ones. No two are about the same
    /// rule as long as there are others.
    pub fn new(report: &Report, count: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut places = all_places(report);
        for last in (1..places.len()).rev() {
            places.swap(last, random.below(last + 1));
        }
        let mut rules = Vec::new();
        let (mut fresh, mut known) = (Vec::new(), Vec::new());
        for place in places {
            let Some(case) = case_at(report, place) else { continue };
            if rules.contains(&case.rule) {
                known.push(place);
            } else {
                rules.push(case.rule);
                fresh.push(place);
            }
        }
        let chosen = fresh.into_iter().chain(known).take(count);
        Quiz { questions: chosen.filter_map(|place| question(report, place, &mut random)).collect() }
    }

    /// The questions.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// Holds an answer, a place among the choices, to what the experiment found; `None` where that was not tried.
    pub fn mark(&self, question: usize, answer: usize, ran: &Report) -> Option<Mark> {
        let question = self.questions.get(question)?;
        let case = case_at(ran, question.place)?;
        let observed = in_words(case, case.observed.as_ref()?);
        let why = case.rule.sentence().to_owned();
        Some(Mark { right: question.choices.get(answer) == Some(&observed), answer: observed, why })
    }
}

fn all_places(report: &Report) -> Vec<Place> {
    let mut places = Vec::new();
    for (section, table) in report.sections.iter().enumerate().filter(|(_, table)| table.shown != Shown::Summed) {
        for (row, line) in table.rows.iter().enumerate() {
            places.extend((0..line.cells.len()).map(|cell| Place { section, row, cell }));
        }
    }
    places
}

fn case_at(report: &Report, place: Place) -> Option<&Case> {
    report.sections.get(place.section)?.rows.get(place.row)?.cells.get(place.cell)?.as_ref()
}

fn question(report: &Report, place: Place, random: &mut Random) -> Option<Question> {
    let section = &report.sections[place.section];
    let case = case_at(report, place)?;
    let right = in_words(case, &case.predicted);
    let mut choices = vec![right.clone()];
    for other in section.cases().chain(report.cases()).map(|case| in_words(case, &case.predicted)) {
        if choices.len() < CHOICES && !choices.contains(&other) {
            choices.push(other);
        }
    }
    let at = random.below(choices.len());
    choices.swap(0, at);
    Some(Question { text: ask(section, place), choices, place })
}

fn ask(section: &Section, place: Place) -> String {
    let (row, column) = (&section.rows[place.row], &section.columns[place.cell]);
    let group = if column.group.is_empty() { String::new() } else { format!("{}: ", column.group) };
    format!("{}. {}: {}. {group}{}?", section.title, section.row_head, row.name, column.name)
}

/// A reply that is lost is no mere timeout here: that is the point of the question.
fn in_words(case: &Case, outcome: &super::Outcome) -> String {
    match outcome {
        super::Outcome::ReplyLost => "it arrives, and the reply is lost".to_owned(),
        super::Outcome::Errno(errno) if *errno == nix::errno::Errno::ECONNREFUSED => format!("refused ({outcome})"),
        _ if case.what.iter().any(|(name, _)| *name == "backlog") => format!("{outcome} of the clients"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Experiment;

    #[test]
    fn every_question_has_its_answer_among_the_choices_and_is_marked() {
        for experiment in Experiment::ALL {
            let mut report = experiment.predict();
            let quiz = Quiz::new(&report, 5, 7);
            assert!(!quiz.questions().is_empty());
            for case in report.sections.iter_mut().flat_map(Section::cases_mut) {
                case.observe(case.predicted.clone(), Vec::new());
            }
            for (number, question) in quiz.questions().iter().enumerate() {
                let marks: Vec<_> = (0..question.choices.len())
                    .map(|answer| quiz.mark(number, answer, &report).unwrap().right)
                    .collect();
                assert_eq!(marks.iter().filter(|right| **right).count(), 1, "{question:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        let report = Experiment::Reach.predict();
        let texts =
            |seed| Quiz::new(&report, 5, seed).questions().iter().map(|one| one.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(1), texts(1));
        assert_ne!(texts(1), texts(2));
    }
}
