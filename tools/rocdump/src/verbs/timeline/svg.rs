//! The picture as SVG.

use std::fmt::Write;

use super::Picture;
use crate::out::{count, harmless, moment};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 30.0;

const INK: &str = "#24292f";
const FAINT: &str = "#6e7781";
const SHADES: [&str; 2] = ["#4a78b5", "#7ba3d6"];
const GOOD: &str = "#2f7d4f";
const WARN: &str = "#c46a1b";
const BAD: &str = "#c0272d";

/// A canvas that knows where a commit is.
struct Canvas<'a> {
    picture: &'a Picture,
    to: String,
}

impl Canvas<'_> {
    fn x(&self, lsn: u64) -> f64 {
        LEFT + self.picture.place(lsn) * (WIDTH - LEFT - RIGHT)
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, color: &str, text: &str) {
        let text = escaped(text);
        // Writing to a string does not fail.
        writeln!(
            self.to,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{color}">{text}</text>"#
        )
        .unwrap_or_default();
    }

    /// Text under a mark, kept inside the picture.
    fn name(&mut self, x: f64, y: f64, color: &str, text: &str) {
        let anchor = match x {
            x if x < LEFT + 20.0 => "start",
            x if x > WIDTH - RIGHT - 40.0 => "end",
            _ => "middle",
        };
        self.text(x, y, anchor, color, text);
    }

    fn label(&mut self, y: f64, text: &str) {
        self.text(LEFT - 18.0, y, "end", FAINT, text);
    }

    fn bar(&mut self, from: u64, to: u64, y: f64, height: f64, color: &str, title: &str) {
        let (x, end) = (self.x(from), self.x(to));
        let width = (end - x).max(1.5);
        let title = escaped(title);
        writeln!(
            self.to,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{color}"><title>{title}</title></rect>"#
        )
        .unwrap_or_default();
    }

    fn line(&mut self, x: f64, top: f64, bottom: f64, color: &str) {
        writeln!(
            self.to,
            r#"<line x1="{x:.1}" y1="{top:.1}" x2="{x:.1}" y2="{bottom:.1}" stroke="{color}"/>"#
        )
        .unwrap_or_default();
    }
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    harmless(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(super) fn draw(picture: &Picture) -> String {
    let height = 340.0;
    let mut canvas = Canvas { picture, to: String::new() };
    writeln!(
        canvas.to,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="12">
<rect width="{WIDTH}" height="{height}" fill="white"/>"#
    )
    .unwrap_or_default();
    canvas.text(
        LEFT,
        22.0,
        "start",
        INK,
        "What is kept, in the order of commits, and what the next boot reads of it",
    );
    writeln!(canvas.to, r#"<g transform="translate(0 26)">"#).unwrap_or_default();
    scale(&mut canvas, 30.0, 255.0);
    log(&mut canvas, 60.0);
    marks(&mut canvas);
    boot(&mut canvas, 225.0);
    times(&mut canvas, 285.0);
    canvas.to.push_str("</g>\n</svg>\n");
    canvas.to
}

fn scale(canvas: &mut Canvas<'_>, top: f64, bottom: f64) {
    canvas.label(top, "commit");
    for lsn in canvas.picture.quarters() {
        let x = canvas.x(lsn);
        canvas.line(x, top + 6.0, bottom, "#eaeef2");
        canvas.name(x, top, FAINT, &count(lsn));
    }
}

fn log(canvas: &mut Canvas<'_>, top: f64) {
    canvas.label(top + 17.0, "log");
    for (number, segment) in canvas.picture.segments.iter().enumerate() {
        let (Some(first), Some(last)) = (segment.first, segment.last) else { continue };
        let title = format!("segment {}: commits {first} to {last}", segment.number.0);
        let shade = SHADES[number % 2];
        canvas.bar(first.get().saturating_sub(1), last.get(), top, 26.0, shade, &title);
    }
    for (first, last) in &canvas.picture.gaps {
        let title = format!("commits {first} to {last} cannot be read");
        canvas.bar(first.saturating_sub(1), *last, top - 4.0, 34.0, BAD, &title);
    }
}

/// Boots, checkpoints and discards, each a mark with a name where there is room.
fn marks(canvas: &mut Canvas<'_>) {
    canvas.label(118.0, "boots");
    let mut free = 0.0;
    for (epoch, lsn) in &canvas.picture.boots {
        let x = canvas.x(*lsn);
        canvas.line(x, 90.0, 106.0, INK);
        if x >= free {
            canvas.name(x, 118.0, INK, &format!("boot {epoch}"));
            free = x + 52.0;
        }
    }
    if !canvas.picture.checkpoints.is_empty() {
        canvas.label(150.0, "checkpoints");
    }
    let mut free = WIDTH;
    for (number, lsn, begins) in canvas.picture.checkpoints.iter().rev() {
        let x = canvas.x(*lsn);
        let (fill, y) = (if *begins { GOOD } else { "white" }, 146.0);
        writeln!(
            canvas.to,
            r#"<path d="M{x:.1} {0:.1} l7 7 l-7 7 l-7 -7 z" fill="{fill}" stroke="{GOOD}"><title>checkpoint {number}: everything up to commit {lsn}</title></path>"#,
            y - 7.0
        )
        .unwrap_or_default();
        if x <= free {
            let name = if *begins {
                format!("{number}: the next boot begins here")
            } else {
                number.to_string()
            };
            canvas.name(x, 170.0, GOOD, &name);
            free = x - 80.0;
        }
    }
    if !canvas.picture.discards.is_empty() {
        canvas.label(198.0, "discards");
    }
    for (what, lsn) in &canvas.picture.discards {
        let x = canvas.x(*lsn);
        writeln!(
            canvas.to,
            r#"<text x="{x:.1}" y="199" text-anchor="middle" fill="{WARN}">×<title>{} in commit {lsn}</title></text>"#,
            escaped(what)
        )
        .unwrap_or_default();
    }
}

fn boot(canvas: &mut Canvas<'_>, top: f64) {
    canvas.label(top + 9.0, "next boot");
    let text = canvas.picture.boot_text.clone();
    match canvas.picture.boot_from {
        Some(from) => {
            let end = canvas.picture.to;
            canvas.bar(from, end, top, 10.0, WARN, &text);
            let middle = f64::midpoint(canvas.x(from), canvas.x(end));
            let anchor = if middle > WIDTH * 0.7 { "end" } else { "middle" };
            let x = if anchor == "end" { WIDTH - RIGHT } else { middle };
            canvas.text(x, top + 26.0, anchor, WARN, &text);
        }
        None => canvas.text(LEFT, top + 10.0, "start", BAD, &text),
    }
}

fn times(canvas: &mut Canvas<'_>, y: f64) {
    canvas.label(y, "time (UTC)");
    for (place, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
        if let Some(time) = canvas.picture.time_near(place) {
            let x = LEFT + place * (WIDTH - LEFT - RIGHT);
            let text = moment(time).replace('T', " ");
            let text = text.split('.').next().unwrap_or(&text).to_owned();
            canvas.text(x, y, anchor, FAINT, &text);
        }
    }
}
