//! What was measured, as a table for people.

use rocstate_bench::run::{Answer, Failure, Question};

/// Everything that was measured so far.
#[derive(Default)]
pub(crate) struct Report {
    answers: Vec<Answered>,
}

/// One question with its answers; the first of them is what the others are compared with.
pub(crate) struct Answered {
    pub(crate) question: String,
    pub(crate) unit: &'static str,
    pub(crate) answers: Vec<Answer>,
}

impl Report {
    /// Asks a question, prints and keeps what comes of it.
    pub(crate) fn ask(&mut self, question: Question<'_>, rounds: usize) -> Result<(), Failure> {
        let (name, unit) = (question.name.clone(), question.unit);
        let answered = Answered { question: name, unit, answers: question.answer(rounds)? };
        answered.print();
        self.answers.push(answered);
        Ok(())
    }
}

impl Answered {
    fn print(&self) {
        println!("\n{} ({})", self.question, self.unit);
        let Some(first) = self.answers.first() else { return };
        for answer in &self.answers {
            let (low, high) = answer.range();
            println!(
                "  {:<34} {:>10} ({} to {})  {:>6.2} times the first",
                answer.contender,
                digits(answer.median()),
                digits(low),
                digits(high),
                answer.of(first),
            );
        }
    }
}

/// A figure with about three digits.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.1} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
