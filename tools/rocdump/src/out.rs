//! Where output goes: text for people, JSON for programs; progress and complaints to standard error.

use std::borrow::Cow;
use std::io::{BufWriter, IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{Color, Settings};
use crate::exit::{Done, Exit};
use crate::json;

/// The version of what `--json` prints.
pub(crate) const JSON_VERSION: u64 = 1;

const BUFFER_BYTES: usize = 256 << 10;

/// Output of one run.
pub(crate) struct Out<'a> {
    to: BufWriter<&'a mut dyn Write>,
    errors: &'a mut dyn Write,
    pub(crate) json: bool,
    color: bool,
    progress: bool,
}

/// What a piece of text is.
#[derive(Clone, Copy)]
pub(crate) enum Ink {
    Head,
    Faint,
    Good,
    Warn,
    Bad,
}

impl<'a> Out<'a> {
    pub(crate) fn new(
        to: &'a mut dyn Write,
        errors: &'a mut dyn Write,
        settings: &Settings,
    ) -> Out<'a> {
        let color = match settings.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
            }
        };
        Out {
            to: BufWriter::with_capacity(BUFFER_BYTES, to),
            errors,
            json: settings.json,
            color: color && !settings.json,
            progress: !settings.quiet && std::io::stderr().is_terminal(),
        }
    }

    /// Makes what was written visible to whoever follows.
    pub(crate) fn flush(&mut self) -> Done<()> {
        Ok(self.to.flush()?)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Done<()> {
        Ok(self.to.write_all(bytes)?)
    }

    /// A line for people: what a store holds cannot make the terminal do anything.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Done<()> {
        self.to.write_all(harmless(text.as_ref()).as_bytes())?;
        Ok(self.to.write_all(b"\n")?)
    }

    /// One JSON document, or one line of a stream of them.
    pub(crate) fn document(&mut self, bytes: &[u8]) -> Done<()> {
        self.to.write_all(bytes)?;
        Ok(self.to.write_all(b"\n")?)
    }

    /// Tells people something beside the output.
    pub(crate) fn note(&mut self, text: impl AsRef<str>) {
        // Nobody is left to be told that nobody can be told.
        writeln!(self.errors, "rocdump: {}", harmless(text.as_ref())).unwrap_or_default();
    }

    pub(crate) fn fail(&mut self, exit: Exit, what: &str) {
        if self.json {
            let mut line = Vec::new();
            let mut object = begin_document(&mut line, "error");
            object.number("exit", exit as u64);
            object.string("error", what);
            object.end();
            self.document(&line).and_then(|()| self.flush()).unwrap_or_default();
        }
        self.to.flush().unwrap_or_default();
        self.note(what);
    }

    pub(crate) fn ink(&self, ink: Ink, text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        if !self.color {
            return text.to_owned();
        }
        let style = match ink {
            Ink::Head => Style::new().bold(),
            Ink::Faint => Style::new().dimmed(),
            Ink::Good => AnsiColor::Green.on_default(),
            Ink::Warn => AnsiColor::Yellow.on_default(),
            Ink::Bad => AnsiColor::Red.on_default().bold(),
        };
        format!("{style}{text}{style:#}")
    }

    pub(crate) fn head(&mut self, text: &str) -> Done<()> {
        let text = self.ink(Ink::Head, text);
        self.line(text)
    }

    /// A table whose columns are aligned; those named here to the right.
    pub(crate) fn table(
        &mut self,
        heads: &[&str],
        right: &[usize],
        rows: Vec<Vec<String>>,
    ) -> Done<()> {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(heads.to_vec());
        for row in rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
            if right.contains(&column.index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for (at, line) in table.lines().enumerate() {
            let line = format!("  {}", line.trim_end());
            let line = if at == 0 { self.ink(Ink::Faint, line) } else { line };
            self.line(line)?;
        }
        Ok(())
    }

    /// A bar on standard error; it shows nothing where nobody looks.
    pub(crate) fn progress(&self, what: &'static str, total: u64) -> ProgressBar {
        let target =
            if self.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = "{wide_bar} {human_pos} of {human_len} {msg}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()));
        bar.set_message(what);
        bar
    }
}

/// Text without control characters, but for the colours that the tool itself writes: names and labels are
/// whatever somebody put there.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    // Control characters are one byte, or begin with 0xc2.
    if text.bytes().all(|byte| byte >= 0x20 && byte != 0x7f && byte != 0xc2) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let (this, behind) = rest.split_at(letter.len_utf8());
        rest = behind;
        if let Some(color) = Some(behind).filter(|_| letter == '\u{1b}').and_then(color) {
            shown.push_str(this);
            shown.push_str(color);
            rest = behind.get(color.len()..).unwrap_or_default();
        } else if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

/// What makes an escape character a colour, if that is what follows.
fn color(behind: &str) -> Option<&str> {
    let end = behind.find('m')?;
    let digits = behind.strip_prefix('[')?.get(..end.checked_sub(1)?)?;
    let only = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b';');
    behind.get(..=end).filter(|_| only && digits.len() < 16)
}

/// Begins what every document begins with.
pub(crate) fn begin_document<'o>(to: &'o mut Vec<u8>, verb: &str) -> json::Object<'o> {
    let mut object = json::Object::begin(to);
    object.number("rocdump", JSON_VERSION);
    object.string("verb", verb);
    object
}

pub(crate) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

pub(crate) fn count(count: u64) -> String {
    HumanCount(count).to_string()
}

/// A count and what is counted, in the plural where it is one.
pub(crate) fn counted(number: u64, what: &str) -> String {
    let ending = match (number, what.strip_suffix('y')) {
        (1, _) => return format!("1 {what}"),
        (_, Some(stem)) => return format!("{} {stem}ies", count(number)),
        _ => "s",
    };
    format!("{} {what}{ending}", count(number))
}

pub(crate) fn duration(duration: Duration) -> String {
    format!("{duration:.1?}")
}

/// A moment in UTC, out of microseconds since 1970.
pub(crate) fn moment(time_us: u64) -> String {
    let stamp =
        i64::try_from(time_us).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    stamp.map_or_else(|| format!("{time_us} us"), |stamp| format!("{stamp:.6}"))
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn nothing_that_a_store_holds_makes_a_terminal_do_anything() {
        assert_eq!(harmless("plain \u{e9} text"), "plain \u{e9} text");
        assert_eq!(harmless("\u{1b}[1;31mred\u{1b}[0m"), "\u{1b}[1;31mred\u{1b}[0m");
        for (hostile, shown) in [
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\u{1b}]0;title\u{7}m", "a\\u{1b}]0;title\\u{7}m"),
            ("a\nb\rc\td", "a\\nb\\rc\\td"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{7f}\u{1b}", "\\u{7f}\\u{1b}"),
            ("\u{1b}[", "\\u{1b}["),
        ] {
            assert_eq!(harmless(hostile), shown);
        }
    }
}
