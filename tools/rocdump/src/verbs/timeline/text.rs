//! The picture on a terminal.

use super::Picture;
use crate::exit::Done;
use crate::out::{Ink, Out, count, moment};

const LABEL: usize = 12;
/// Room for what is said behind a row; longer words wrap.
const WORDS: usize = 34;
const COLUMNS_USUAL: usize = 110;
const COLUMNS_MIN: usize = 40;
const COLUMNS_MAX: usize = 160;

/// A row of signs.
struct Row {
    signs: Vec<char>,
}

impl Row {
    fn empty(columns: usize) -> Row {
        Row { signs: vec![' '; columns] }
    }

    fn put(&mut self, at: usize, sign: char) {
        if let Some(place) = self.signs.get_mut(at) {
            *place = sign;
        }
    }

    fn fill(&mut self, from: usize, to: usize, sign: char) {
        for at in from..to {
            self.put(at, sign);
        }
    }

    /// Writes text beginning at a column, moved to the left where it would not fit; false if something is
    /// there already.
    fn write(&mut self, at: usize, text: &str) -> bool {
        let long = text.chars().count();
        let at = at.min(self.signs.len().saturating_sub(long));
        let room = self.signs.get(at.saturating_sub(1)..(at + long + 1).min(self.signs.len()));
        if room.is_none_or(|room| room.iter().any(|sign| *sign != ' ')) {
            return false;
        }
        for (offset, sign) in text.chars().enumerate() {
            self.put(at + offset, sign);
        }
        true
    }

    fn text(&self) -> String {
        self.signs.iter().collect::<String>().trim_end().to_owned()
    }
}

pub(super) fn draw(picture: &Picture, out: &mut Out<'_>) -> Done<()> {
    if picture.segments.is_empty() && picture.checkpoints.is_empty() {
        return out.line("a store that was never begun: there is nothing to show yet");
    }
    let columns = columns();
    let at = |lsn: u64| column(picture, lsn, columns);
    let mut rows: Vec<(&str, Ink, Row, String)> = Vec::new();

    let mut scale = Row::empty(columns);
    for lsn in picture.quarters() {
        scale.write(at(lsn), &count(lsn));
    }
    rows.push(("commit", Ink::Faint, scale, String::new()));

    let mut log = Row::empty(columns);
    for (number, segment) in picture.segments.iter().enumerate() {
        if let (Some(first), Some(last)) = (segment.first, segment.last) {
            let sign = if number % 2 == 0 { '█' } else { '▓' };
            let begin = at(first.get().saturating_sub(1));
            log.fill(begin, at(last.get()).max(begin + 1), sign);
        }
    }
    for (first, last) in &picture.gaps {
        let begin = at(first.saturating_sub(1));
        log.fill(begin, at(*last).max(begin + 1), '!');
    }
    let kept = match picture.segments.len() {
        1 => "1 segment".to_owned(),
        n => format!("{n} segments, one shade each"),
    };
    rows.push(("log", Ink::Head, log, kept));

    let mut boots = Row::empty(columns);
    let mut hidden = 0;
    for (epoch, lsn) in &picture.boots {
        hidden += usize::from(!boots.write(at(*lsn), &format!("↑{epoch}")));
    }
    rows.push(("boots", Ink::Faint, boots, more(hidden, "which boot begins here")));

    let mut checkpoints = Row::empty(columns);
    let mut hidden = 0;
    for (number, lsn, begins) in picture.checkpoints.iter().rev() {
        let sign = if *begins { '◆' } else { '◇' };
        hidden += usize::from(!checkpoints.write(at(*lsn), &format!("{sign}{number}")));
    }
    if !picture.checkpoints.is_empty() {
        let text =
            more(hidden, "all up to here is in this file; ◆ is what the next boot begins with");
        rows.push(("checkpoints", Ink::Good, checkpoints, text));
    }

    if !picture.discards.is_empty() {
        let mut discards = Row::empty(columns);
        for (_, lsn) in &picture.discards {
            discards.put(at(*lsn).min(columns - 1), '×');
        }
        let names: std::collections::BTreeSet<&str> =
            picture.discards.iter().map(|(what, _)| what.as_str()).collect();
        let names: Vec<&str> = names.into_iter().take(4).collect();
        rows.push(("discards", Ink::Warn, discards, names.join(", ")));
    }

    let mut boot = Row::empty(columns);
    if let Some(from) = picture.boot_from {
        boot.fill(at(from), columns, '═');
        boot.put(at(from).min(columns - 1), '╞');
    }
    rows.push(("next boot", Ink::Warn, boot, picture.boot_text.clone()));

    let mut times = Row::empty(columns);
    for place in [0.0, 0.5, 1.0] {
        if let Some(time) = picture.time_near(place) {
            times.write(at_place(place, columns), &clock(time));
        }
    }
    let day = picture.times.first().map_or(String::new(), |(_, us)| {
        moment(*us).split('T').next().unwrap_or_default().to_owned()
    });
    rows.push(("time (UTC)", Ink::Faint, times, day));

    for (label, ink, row, text) in rows {
        let signs = out.ink(ink, row.text());
        let pad = columns.saturating_sub(row.text().chars().count());
        let label = out.ink(Ink::Faint, format!("{label:<LABEL$}"));
        let text = if text.is_empty() { text } else { format!("{}  {text}", " ".repeat(pad)) };
        out.line(format!("{label}{signs}{text}").trim_end())?;
    }
    for (first, last) in &picture.gaps {
        let text = if first == last {
            format!("!  commit {first} cannot be read")
        } else {
            format!("!  commits {first} to {last} cannot be read")
        };
        let text = out.ink(Ink::Bad, text);
        out.line(text)?;
    }
    for note in &picture.health.notes {
        let text = out.ink(Ink::Warn, note);
        out.line(text)?;
    }
    Ok(())
}

fn more(hidden: usize, text: &str) -> String {
    if hidden == 0 { text.to_owned() } else { format!("{text} ({hidden} more stand too close)") }
}

/// The time of day.
fn clock(us: u64) -> String {
    let moment = moment(us);
    let time = moment.split('T').nth(1).unwrap_or(&moment);
    time.split('.').next().unwrap_or(time).trim_end_matches('Z').to_owned()
}

/// The columns that the picture has: those of the terminal, less the label and the words behind.
fn columns() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let columns: usize = told.unwrap_or(COLUMNS_USUAL);
    columns.saturating_sub(LABEL + WORDS).clamp(COLUMNS_MIN, COLUMNS_MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a column of a terminal"
)]
fn at_place(place: f64, columns: usize) -> usize {
    (place * columns as f64).round() as usize
}

fn column(picture: &Picture, lsn: u64, columns: usize) -> usize {
    at_place(picture.place(lsn), columns)
}
