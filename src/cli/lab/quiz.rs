//! `greetd lab --quiz`: asks what you would predict, then runs the experiment, says why, and keeps score.

use std::io::{self, BufRead as _};
use std::time::{SystemTime, UNIX_EPOCH};

use super::try_all;
use crate::cli::failure::Outcome;
use crate::cli::output;
use crate::lab::Experiment;
use crate::lab::quiz::{Question, Quiz};

/// How many questions are asked of each experiment.
const QUESTIONS: usize = 5;

pub(super) fn run(wanted: &[Experiment]) -> Outcome {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut right, mut asked) = (0, 0);
    for experiment in wanted {
        let quiz = Quiz::new(&experiment.predict(), QUESTIONS, seed);
        output::print(format_args!("{}\n", experiment.title()))?;
        let mut answers = Vec::new();
        for question in quiz.questions() {
            let Some(answer) = ask(question)? else { break };
            answers.push(answer);
        }
        if answers.is_empty() {
            break;
        }
        let report = try_all(&[*experiment])?.swap_remove(0);
        for (number, answer) in answers.into_iter().enumerate() {
            let Some(mark) = quiz.mark(number, answer, &report) else {
                output::print(format_args!("{}. could not be tried here\n", number + 1))?;
                continue;
            };
            asked += 1;
            right += usize::from(mark.right);
            let word = if mark.right { "right" } else { "no" };
            output::print(format_args!("{}. {word}: {}. {}\n", number + 1, mark.answer, mark.why))?;
        }
        output::print(format_args!("{right} of {asked} so far\n\n"))?;
    }
    output::print(format_args!("your score: {right} of {asked}\n"))
}

/// The place of the answer; `None` when the input is over.
fn ask(question: &Question) -> Result<Option<usize>, crate::cli::failure::Stop> {
    output::print(format_args!("\n{}\n", question.text))?;
    for (letter, choice) in ('a'..).zip(&question.choices) {
        output::print(format_args!("  {letter}) {choice}\n"))?;
    }
    loop {
        output::print("your answer: ")?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let letter = line.trim().to_lowercase();
        let place = ('a'..).zip(0..question.choices.len()).find(|(known, _)| letter == known.to_string());
        if let Some((_, place)) = place {
            return Ok(Some(place));
        }
        output::print("write one of the letters\n")?;
    }
}
