//! Contenders that alternate within one run, and what their rounds came to.

use std::error::Error;

/// Whatever goes wrong in a measurement ends it.
pub type Failure = Box<dyn Error>;

/// One contender's part of a question: each call is a round, and gives its figure.
pub struct Contestant<'a> {
    /// As tables and plots name it.
    pub name: String,
    round: Box<dyn FnMut() -> Result<f64, Failure> + 'a>,
}

/// A question that several contenders answer with a figure each, round by round.
pub struct Question<'a> {
    /// What is measured.
    pub name: String,
    /// Of what the figures are.
    pub unit: &'static str,
    /// Whether a higher figure is the better one.
    pub more_is_better: bool,
    contestants: Vec<Contestant<'a>>,
}

/// What the rounds of one contender came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whose it is.
    pub contender: String,
    /// One figure a round, in the order of the rounds.
    pub rounds: Vec<f64>,
}

impl<'a> Question<'a> {
    /// A question whose figures are better when they are higher: rates.
    pub fn of_rates(name: impl Into<String>, unit: &'static str) -> Self {
        Question { name: name.into(), unit, more_is_better: true, contestants: Vec::new() }
    }

    /// A question whose figures are better when they are lower: times and sizes.
    pub fn of_costs(name: impl Into<String>, unit: &'static str) -> Self {
        Question { more_is_better: false, ..Question::of_rates(name, unit) }
    }

    /// Adds a contender.
    #[must_use]
    pub fn ask(
        mut self,
        name: impl Into<String>,
        round: impl FnMut() -> Result<f64, Failure> + 'a,
    ) -> Self {
        self.contestants.push(Contestant { name: name.into(), round: Box::new(round) });
        self
    }

    /// Goes round, each time through all contenders.
    ///
    /// # Errors
    /// The first failure of any.
    pub fn answer(mut self, rounds: usize) -> Result<Vec<Answer>, Failure> {
        let mut answers: Vec<Answer> = (self.contestants.iter())
            .map(|one| Answer { contender: one.name.clone(), rounds: Vec::new() })
            .collect();
        for _ in 0..rounds {
            for (one, answer) in self.contestants.iter_mut().zip(&mut answers) {
                answer.rounds.push((one.round)()?);
            }
        }
        Ok(answers)
    }
}

impl Answer {
    /// The median of the rounds.
    pub fn median(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// The lowest and the highest round.
    pub fn range(&self) -> (f64, f64) {
        let low = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        (low, self.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// The median of what this one's figures are of the other's, round by round.
    pub fn of(&self, other: &Answer) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(a, b)| a / b).collect())
    }
}

/// The middle one; of an even number the upper of the two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
