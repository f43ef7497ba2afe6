//! Questions of which a round tells how long each commit took.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::report::Report;

/// Contenders who tell how long each commit of a round took: their rates, and their tails.
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
    ) -> Result<(), Failure> {
        // The latency of a round is measured with its rate, and told afterwards.
        let tails: Vec<_> = self.contenders.iter().map(|_| RefCell::default()).collect();
        let mut rates = Question::of_rates(question, "commits/s");
        let mut latest = Question::of_costs(format!("{question}, p99"), "us");
        for ((name, mut round), tails) in self.contenders.into_iter().zip(&tails) {
            let tails: &RefCell<VecDeque<f64>> = tails;
            latest = latest
                .ask(name.clone(), || Ok(tails.borrow_mut().pop_front().ok_or("no such round")?));
            rates = rates.ask(name, move || {
                let mut times = round()?;
                times.sort_by(f64::total_cmp);
                let tail = times.get(times.len() * 99 / 100).copied().unwrap_or(f64::NAN);
                tails.borrow_mut().push_back(tail * 1e6);
                Ok(times.len() as f64 / self.round.as_secs_f64())
            });
        }
        report.ask(rates, plan.rounds)?;
        report.ask(latest, plan.rounds)
    }
}
