//! Questions of which a round tells how long each commit took.

use std::cell::RefCell;
use std::time::Duration;

use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::report::Report;

/// What is told of the times of a round, which are sorted and in seconds: its name, and the figure.
pub(crate) type Figure = (&'static str, fn(&[f64]) -> f64);

/// What only one of a hundred passes.
pub(crate) const P99: Figure =
    ("p99", |times| times.get(times.len() * 99 / 100).copied().unwrap_or(f64::NAN));

/// What they come to on the average.
pub(crate) const MEAN: Figure = ("mean", |times| times.iter().sum::<f64>() / times.len() as f64);

/// Contenders who tell how long each commit of a round took: their rates, and how long that was.
pub(crate) struct Latencies<'a> {
    round: Duration,
    contenders: Vec<(String, Round<'a>)>,
}

type Round<'a> = Box<dyn FnMut() -> Result<Vec<f64>, Failure> + 'a>;

impl<'a> Latencies<'a> {
    pub(crate) fn new(round: Duration) -> Self {
        Latencies { round, contenders: Vec::new() }
    }

    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        round: impl FnMut() -> Result<Vec<f64>, Failure> + 'a,
    ) {
        self.contenders.push((name.into(), Box::new(round)));
    }

    pub(crate) fn ask(
        self,
        plan: &Plan,
        report: &mut Report,
        question: &str,
        figures: &[Figure],
    ) -> Result<(), Failure> {
        // The latencies of a round are measured with its rate, and told afterwards.
        let kept: Vec<RefCell<Vec<Vec<f64>>>> =
            self.contenders.iter().map(|_| RefCell::default()).collect();
        let names: Vec<_> = self.contenders.iter().map(|(name, _)| name.clone()).collect();
        let mut rates = Question::of_rates(question, "commits/s");
        for ((name, mut round), kept) in self.contenders.into_iter().zip(&kept) {
            rates = rates.ask(name, move || {
                let mut times = round()?;
                times.sort_by(f64::total_cmp);
                kept.borrow_mut().push(figures.iter().map(|(_, of)| of(&times)).collect());
                Ok(times.len() as f64 / self.round.as_secs_f64())
            });
        }
        report.ask(rates, plan.rounds)?;
        for (at, (figure, _)) in figures.iter().enumerate() {
            let mut costs = Question::of_costs(format!("{question}, {figure}"), "us");
            for (name, kept) in names.iter().zip(&kept) {
                let mut rounds = kept.borrow().clone().into_iter();
                costs = costs.ask(name.clone(), move || {
                    let round = rounds.next().ok_or("no such round")?;
                    Ok(round.get(at).ok_or("no such figure")? * 1e6)
                });
            }
            report.ask(costs, plan.rounds)?;
        }
        Ok(())
    }
}
