//! What was measured: a table for people, JSON lines for machines, a plot for each question.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use plotters::prelude::*;
use rocstate_bench::run::{Answer, Failure, Question};

/// Where figures go, and under what circumstances they were taken.
pub(crate) struct Report {
    /// Of JSON lines and plots, if they are wanted.
    dir: Option<PathBuf>,
    circumstances: String,
    lines: Option<File>,
}

/// One question with its answers; the first of them is what the others are compared with.
struct Answered {
    question: String,
    unit: &'static str,
    more_is_better: bool,
    answers: Vec<Answer>,
}

impl Report {
    pub(crate) fn new(dir: Option<PathBuf>, circumstances: String) -> Result<Report, Failure> {
        let lines = match &dir {
            Some(dir) => {
                fs::create_dir_all(dir)?;
                let path = dir.join("results.jsonl");
                Some(File::options().create(true).append(true).open(path)?)
            }
            None => None,
        };
        Ok(Report { dir, circumstances, lines })
    }

    /// Asks a question, and prints and keeps what comes of it.
    pub(crate) fn ask(&mut self, question: Question<'_>, rounds: usize) -> Result<(), Failure> {
        let (name, unit, more_is_better) =
            (question.name.clone(), question.unit, question.more_is_better);
        let_background_end();
        let answers = question.answer(rounds)?;
        let answered = Answered { question: name, unit, more_is_better, answers };
        answered.print();
        if let Some(lines) = &mut self.lines {
            writeln!(lines, "{}", answered.json(&self.circumstances))?;
        }
        if let Some(dir) = &self.dir {
            let name: String = answered
                .question
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
                .collect();
            let name = name.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>();
            answered.plot(&dir.join(format!("{}.svg", name.join("-"))))?;
        }
        Ok(())
    }
}

/// Waits until this process does nothing: what the question before dropped may be freed for seconds,
/// and everybody who allocates meanwhile waits for that.
pub(crate) fn let_background_end() {
    const LOOKS_MAX: u32 = 150;
    let mut before = ticks_used();
    for _ in 0..LOOKS_MAX {
        std::thread::sleep(Duration::from_millis(200));
        let now = ticks_used();
        if now <= before + 1 {
            break;
        }
        before = now;
    }
}

/// What this process has used of the processors, in hundredths of a second; 0 where nothing tells.
fn ticks_used() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    behind_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

impl Answered {
    fn print(&self) {
        println!("\n| {} ({}) | median | range | of the first |", self.question, self.unit);
        println!("|---|---|---|---|");
        let Some(first) = self.answers.first() else { return };
        for answer in &self.answers {
            let (low, high) = answer.range();
            println!(
                "| {} | {} | {} to {} | {:.2} |",
                answer.contender,
                digits(answer.median()),
                digits(low),
                digits(high),
                answer.of(first),
            );
        }
    }

    fn json(&self, circumstances: &str) -> serde_json::Value {
        let answers = self.answers.iter().map(|answer| {
            serde_json::json!({
                "contender": answer.contender,
                "median": answer.median(),
                "rounds": answer.rounds,
            })
        });
        serde_json::json!({
            "question": self.question,
            "unit": self.unit,
            "more_is_better": self.more_is_better,
            "circumstances": circumstances,
            "answers": answers.collect::<Vec<_>>(),
        })
    }

    /// A bar for each median, with a whisker over the range.
    fn plot(&self, path: &std::path::Path) -> Result<(), Failure> {
        const LEFT: i32 = 230;
        const WIDTH: i32 = 420;
        const ROW: i32 = 26;
        let rows = i32::try_from(self.answers.len())?;
        let size = (u32::try_from(LEFT + WIDTH + 110)?, u32::try_from(50 + rows * ROW)?);
        let area = SVGBackend::new(path, size).into_drawing_area();
        area.fill(&WHITE)?;
        let text = ("sans-serif", 14).into_font();
        let better = if self.more_is_better { "more is better" } else { "less is better" };
        let title = format!("{}, {} ({better})", self.question, self.unit);
        area.draw(&Text::new(title, (10, 12), ("sans-serif", 16).into_font()))?;
        let most = self.answers.iter().map(|answer| answer.range().1).fold(0.0, f64::max);
        #[expect(clippy::cast_possible_truncation, reason = "it is within the width")]
        let x = |value: f64| LEFT + (value / most * f64::from(WIDTH)) as i32;
        for (at, answer) in (0..).zip(&self.answers) {
            let (y, (low, high)) = (42 + at * ROW, answer.range());
            let colour = if answer.contender == "rocstate" { RGBColor(200, 80, 30) } else { BLUE };
            area.draw(&Text::new(answer.contender.clone(), (10, y), text.clone()))?;
            let bar = [(LEFT, y), (x(answer.median()).max(LEFT + 1), y + 16)];
            area.draw(&Rectangle::new(bar, colour.mix(0.7).filled()))?;
            area.draw(&PathElement::new([(x(low), y + 8), (x(high), y + 8)], BLACK))?;
            let figure = digits(answer.median());
            area.draw(&Text::new(figure, (x(high) + 8, y), text.clone()))?;
        }
        area.present()?;
        Ok(())
    }
}

/// A figure with about three digits.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.1} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
