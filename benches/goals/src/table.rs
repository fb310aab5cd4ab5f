//! The goals and what was found.

use std::fmt::Write as _;

/// One line: what was to be reached, what was.
pub struct Line {
    pub goal: &'static str,
    pub what: String,
    pub wanted: String,
    pub found: String,
    pub met: bool,
}

#[derive(Default)]
pub struct Table(Vec<Line>);

impl Table {
    /// At least so many times as fast as the rival.
    pub fn at_least(
        &mut self,
        goal: &'static str,
        what: impl Into<String>,
        wanted: f64,
        found: f64,
    ) {
        self.line(goal, what, format!("≥ {wanted}x"), format!("{found:.2}x"), found >= wanted);
    }

    /// At most so much, in `unit`.
    pub fn at_most(
        &mut self,
        goal: &'static str,
        what: impl Into<String>,
        wanted: f64,
        found: f64,
        unit: &str,
    ) {
        let met = found <= wanted;
        self.line(goal, what, format!("≤ {wanted}{unit}"), format!("{found:.3}{unit}"), met);
    }

    /// A number that no goal was set for.
    pub fn told(&mut self, goal: &'static str, what: impl Into<String>, unit: &str, found: f64) {
        self.line(goal, what, String::new(), format!("{found:.2}{unit}"), true);
    }

    pub fn line(
        &mut self,
        goal: &'static str,
        what: impl Into<String>,
        wanted: String,
        found: String,
        met: bool,
    ) {
        let line = Line { goal, what: what.into(), wanted, found, met };
        // One by one, so that a person sees it go on.
        let wanted = if line.wanted.is_empty() { "nothing" } else { &line.wanted };
        eprintln!("{:>3}  {}: {} (wanted {wanted})", line.goal, line.what, line.found);
        self.0.push(line);
    }

    pub fn markdown(&self) -> String {
        let mut out = String::from("| goal | what | wanted | found | |\n|---|---|---|---|---|\n");
        for line in &self.0 {
            let verdict = match line {
                Line { met: false, .. } => "falls short",
                Line { wanted, .. } if wanted.is_empty() => "",
                _ => "met",
            };
            let Line { goal, what, wanted, found, .. } = line;
            let _ = writeln!(out, "| {goal} | {what} | {wanted} | {found} | {verdict} |");
        }
        out
    }

    pub fn missed(&self) -> usize {
        self.0.iter().filter(|line| !line.met).count()
    }
}
