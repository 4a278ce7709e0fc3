//! The drawing itself: columns, spans, bands, arrows, marks, and what went wrong.

use castra_core::time::Time;

use super::scale::Scale;
use super::svg::{Anchor, LINE, Svg, escape, width, wrap};
use super::{clock, seconds, span};
use crate::chronicle::{Arrow, Band, Chronicle, Mark, MarkKind, Role};

/// Room for the times at the left.
const AXIS: f64 = 86.0;
/// Height above the first moment.
const TOP: f64 = 26.0;
/// Characters in a line of the violation's text.
const SENTENCE: usize = 64;
/// Height below the end of a broken run, in which what is said then can be seen.
const AFTER: f64 = 30.0;
/// Half of what a shaded span is wide.
const SPAN: f64 = 13.0;

pub(super) struct Diagram<'a> {
    chronicle: &'a Chronicle,
    scale: Scale,
    /// Where the columns are.
    columns: Vec<f64>,
    wide: f64,
    /// Height that what lasts to the end has beyond it.
    after: f64,
    svg: Svg,
}

impl<'a> Diagram<'a> {
    pub(super) fn new(chronicle: &'a Chronicle) -> Self {
        let mut columns = vec![0.0; chronicle.columns.len()];
        let mut right = AXIS;
        // Guests at the left, so that what the broker says of them is outermost.
        let mut order: Vec<_> = chronicle.columns.iter().enumerate().collect();
        order.sort_by_key(|(_, process)| match process.role {
            Role::Guest => 0,
            Role::Broker => 1,
            Role::Client => 2,
        });
        for (column, process) in order {
            let (before, after) = match process.role {
                // The band and its words are at the left.
                Role::Guest => (112.0, 96.0),
                Role::Broker => (60.0, 90.0),
                Role::Client => (56.0, 64.0),
            };
            right += before;
            columns[column] = right;
            right += after;
        }
        let wide = right.max(AXIS + 6.2 * SENTENCE as f64) + 24.0;
        let after = if chronicle.violation.is_some() { AFTER } else { 0.0 };
        Self { chronicle, scale: Scale::new(chronicle, TOP), columns, wide, after, svg: Svg::default() }
    }

    /// The names of the columns, in a drawing of their own that stays in view.
    pub(super) fn heads(&self) -> Framed {
        let mut svg = Svg::default();
        for (process, x) in self.chronicle.columns.iter().zip(&self.columns) {
            let role = match process.role {
                Role::Guest => "a guest",
                Role::Broker => "the broker",
                Role::Client => "a command",
            };
            svg.text("head", Anchor::Middle, [(*x, 18.0)], &process.name);
            if process.name != "broker" {
                svg.text("role", Anchor::Middle, [(*x, 33.0)], role);
            }
        }
        Framed { wide: self.wide, high: 40.0, label: "Processes", body: svg.body }
    }

    /// Everything else.
    pub(super) fn body(mut self, definitions: &str) -> Framed {
        self.lives();
        self.spans();
        self.fold_edges();
        for band in &self.chronicle.bands {
            self.band(band);
        }
        self.fold_texts();
        let below = self.violation();
        for mark in &self.chronicle.marks {
            self.mark(mark);
        }
        self.times();
        let arrows = core::mem::take(&mut self.scale.arrows);
        // What matters gets its words first.
        for routine in [false, true] {
            for index in &arrows {
                let arrow = &self.chronicle.arrows[*index];
                if arrow.is_routine() == routine {
                    self.arrow(arrow);
                }
            }
        }
        let (right, lowest) = self.svg.reach();
        let high = (self.scale.bottom() + below).max(lowest) + 24.0;
        let body = format!("{definitions}{}", self.svg.body);
        Framed { wide: self.wide.max(right + 16.0), high, label: "Space-time diagram", body }
    }

    fn x(&self, column: usize) -> Option<f64> {
        self.columns.get(column).copied()
    }

    /// The height down to which something is drawn that lasts until then.
    fn down_to(&self, until: Time) -> f64 {
        if until < self.chronicle.end { self.scale.y(until) } else { self.bottom() }
    }

    fn bottom(&self) -> f64 {
        self.scale.bottom() + self.after
    }

    /// The end of something that lasts.
    fn until(&self, mark: &Mark) -> Time {
        mark.until.unwrap_or(mark.at).min(self.chronicle.end)
    }

    /// What lasts, as shade behind everything.
    fn spans(&mut self) {
        for mark in self.chronicle.marks.iter().filter(|mark| mark.until.is_some()) {
            let class = match mark.kind {
                MarkKind::Stopped => "stopped",
                MarkKind::Cut => "cut",
                _ => continue,
            };
            let until = self.until(mark);
            let (top, bottom) = (self.scale.y(mark.at), self.down_to(until));
            let tip = format!("{}, {} to {}", mark.text, seconds(mark.at), seconds(until));
            let (left, wide) = match mark.column.and_then(|column| self.x(column)) {
                Some(x) => (x - SPAN, 2.0 * SPAN),
                None => (AXIS, self.wide - AXIS - 24.0),
            };
            self.svg.block(class, (left, top), (wide, bottom - top), &tip);
        }
    }

    /// The lines of the processes: faint where there is none.
    fn lives(&mut self) {
        for column in 0..self.columns.len() {
            let x = self.columns[column];
            let edges: Vec<_> = self
                .chronicle
                .marks
                .iter()
                .filter(|mark| mark.column == Some(column))
                .filter(|mark| matches!(mark.kind, MarkKind::Start | MarkKind::End))
                .collect();
            let mut alive = edges.first().is_none_or(|mark| mark.kind == MarkKind::End);
            let mut from = self.scale.y(Time::ZERO);
            for mark in edges {
                let y = self.scale.y(mark.at);
                self.svg.line(if alive { "life" } else { "gone" }, (x, from), (x, y));
                (alive, from) = (mark.kind == MarkKind::Start, y);
            }
            let bottom = self.bottom();
            self.svg.line(if alive { "life" } else { "gone" }, (x, from), (x, bottom));
        }
    }

    fn fold_edges(&mut self) {
        for index in 0..self.scale.folds.len() {
            let (top, bottom) = self.fold(index);
            let right = self.wide - 24.0;
            self.svg.raw(format_args!(
                "<rect class=\"fold\" x=\"0\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\
                 <path class=\"edge\" d=\"M0 {top:.1}H{right:.1}M0 {bottom:.1}H{right:.1}\"/>",
                self.wide,
                bottom - top
            ));
        }
    }

    fn fold_texts(&mut self) {
        for index in 0..self.scale.folds.len() {
            let (top, bottom) = self.fold(index);
            let fold = &self.scale.folds[index];
            let passes = span(fold.from, fold.until);
            let text = match fold.hidden {
                0 => format!("{passes} pass"),
                hidden => {
                    format!("{passes} pass: {hidden} more challenges and proofs, all as they should be")
                }
            };
            let y = f64::midpoint(top, bottom) + 4.0;
            self.svg.text("quiet", Anchor::Start, [(AXIS + 6.0, y), (8.0, y)], &text);
        }
    }

    /// Top and bottom of a fold.
    fn fold(&self, index: usize) -> (f64, f64) {
        let fold = &self.scale.folds[index];
        (self.scale.y(fold.from) + 8.0, self.scale.y(fold.until) - 8.0)
    }

    fn band(&mut self, band: &Band) {
        let Some(x) = self.x(band.guest) else { return };
        let after = |other: &Band| other.guest == band.guest && other.from >= band.until && other != band;
        let last = !self.chronicle.bands.iter().any(after);
        let until = band.until.min(self.chronicle.end);
        let bottom = if last { self.down_to(until) } else { self.scale.y(until) };
        let top = self.scale.y(band.from);
        let state = if band.reachable { "reachable".to_owned() } else { format!("waiting: {}", band.reason) };
        let class = if band.reachable { "band-reach" } else { "band-wait" };
        // What was said when it should not have been.
        let broken = self.chronicle.violation.as_ref();
        let wrong = last && broken.is_some_and(|broken| broken.column == Some(band.guest));
        let tip = format!("{state}, {} to {}", seconds(band.from), seconds(band.until));
        self.svg.block(class, (x - 30.0, top), (10.0, bottom - top), &tip);
        let (class, lines) = if band.reachable {
            ("reach", vec!["reachable"])
        } else {
            ("wait", vec!["waiting", band.reason.as_str()])
        };
        let lines = if bottom - top < 2.0 * LINE { &lines[lines.len() - 1..] } else { &lines[..] };
        let class = if wrong { "broken" } else { class };
        for (index, line) in lines.iter().enumerate() {
            let y = top + 10.0 + if wrong { 5.0 } else { 0.0 } + index as f64 * LINE;
            self.svg.text(class, Anchor::End, [(x - 36.0, y)], line);
        }
    }

    fn mark(&mut self, mark: &Mark) {
        let y = self.scale.y(mark.at);
        let at = seconds(mark.at);
        let tip = escape(&format!("{at}: {}", mark.text));
        let Some(x) = mark.column.and_then(|column| self.x(column)) else {
            let right = self.wide - 24.0;
            self.svg.line("tick", (AXIS, y), (right, y));
            self.svg.text("fault", Anchor::Start, below((AXIS + 6.0, y + 11.0)), &mark.text);
            return;
        };
        let class = match mark.kind {
            MarkKind::Fault | MarkKind::Stopped | MarkKind::Cut => {
                self.svg.raw(format_args!(
                    "<path class=\"bang\" d=\"M{:.1} {:.1}l5 -10l5 10z\"><title>{tip}</title></path>",
                    x - 5.0,
                    y + 5.0
                ));
                "fault"
            }
            MarkKind::Start => {
                self.svg.raw(format_args!(
                    "<circle class=\"begin\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{tip}</title></circle>"
                ));
                "said"
            }
            MarkKind::End => {
                self.svg.line("end", (x - 7.0, y), (x + 7.0, y));
                "said"
            }
            MarkKind::Window => return self.window(mark, x),
            MarkKind::Wrong => {
                // Not on the red line.
                self.svg.text("broken", Anchor::Start, below((x + SPAN + 4.0, y + 15.0)), &mark.text);
                return;
            }
            MarkKind::Note => "note",
        };
        let lasts = mark.until.filter(|until| *until > mark.at && mark.kind != MarkKind::Note);
        let text = match lasts {
            Some(until) => format!("{}, {}", mark.text, span(mark.at, until)),
            None => mark.text.clone(),
        };
        // Above the arrow that begins with the process.
        let above = if mark.kind == MarkKind::Start { -9.0 } else { 0.0 };
        self.svg.text(class, Anchor::Start, below((x + SPAN + 4.0, y + 4.0 + above)), &text);
    }

    /// A bracket over the time in which there should have been evidence.
    fn window(&mut self, mark: &Mark, x: f64) {
        let until = self.until(mark);
        let (top, bottom) = (self.scale.y(mark.at), self.scale.y(until));
        let left = x - 17.0;
        self.svg.raw(format_args!(
            "<path class=\"window\" d=\"M{x:.1} {top:.1}H{left:.1}V{bottom:.1}H{x:.1}\"><title>{}</title></path>",
            escape(&mark.text)
        ));
        for (index, line) in wrap(&mark.text, 16).iter().enumerate() {
            let base = top + 10.0 + index as f64 * LINE;
            self.svg.text("broken", Anchor::End, below((x - 36.0, base)), line);
        }
    }

    fn arrow(&mut self, arrow: &Arrow) {
        let (Some(start), Some(end)) = (self.x(arrow.from), self.x(arrow.to)) else { return };
        let (class, tip) = match arrow.arrived {
            None => ("lost", ""),
            Some(_) if arrow.delayed => ("late", "tip-late"),
            Some(_) if arrow.is_routine() => ("routine", "tip-routine"),
            Some(_) => ("arrow", "tip"),
        };
        let way = if end > start { 1.0 } else { -1.0 };
        let top = self.scale.y(arrow.sent);
        let name = |column: usize| self.chronicle.columns[column].name.as_str();
        let (from, to) = (name(arrow.from), name(arrow.to));
        let sent = seconds(arrow.sent);
        let (mut stop, mut bottom, mut head) = (end - way * 3.0, top, !tip.is_empty());
        let fate = match arrow.arrived {
            None => {
                stop = end - way * 40.0;
                bottom = top + LINE;
                "never arrived".to_owned()
            }
            Some(at) if at > self.chronicle.end => {
                // Still under way: as far as it came.
                let spent = self.chronicle.end.since(arrow.sent).as_secs_f64();
                let part = spent / at.since(arrow.sent).as_secs_f64().max(1e-9);
                stop = start + (end - start) * part;
                bottom = self.scale.bottom();
                head = false;
                "still under way at the end".to_owned()
            }
            Some(at) => {
                bottom = bottom.max(self.scale.y(at));
                format!("arrived at {}", seconds(at))
            }
        };
        let tooltip = escape(&format!("{from} to {to}: {}; sent at {sent}, {fate}", arrow.label));
        let marker = if head { format!(" marker-end=\"url(#{tip})\"") } else { String::new() };
        self.svg.raw(format_args!(
            "<line class=\"{class}\" x1=\"{start:.1}\" y1=\"{top:.1}\" x2=\"{stop:.1}\" y2=\"{bottom:.1}\"{marker}>\
             <title>{tooltip}</title></line>"
        ));
        if arrow.arrived.is_none() {
            self.svg.raw(format_args!(
                "<path class=\"lost\" d=\"M{:.1} {:.1}l9 10m0 -10l-9 10\"/>",
                stop - 4.5,
                bottom - 5.0
            ));
        }
        self.label(arrow, (start, top), (stop, bottom));
    }

    /// Beside the end that isn't the broker's, where no other guest's are.
    fn label(&mut self, arrow: &Arrow, (start, top): (f64, f64), (stop, bottom): (f64, f64)) {
        let broker = self.chronicle.columns.get(arrow.to).is_some_and(|process| process.role == Role::Broker);
        let text = match (arrow.delayed, arrow.arrived) {
            (true, Some(at)) => {
                format!("{}, {} late", arrow.label, span(arrow.sent, at))
            }
            _ => arrow.label.clone(),
        };
        let wide = width(&text);
        let length = (stop - start).abs();
        let left = if broker { start < stop } else { stop < start };
        // How far along the arrow, from the end beside which the text begins.
        let place = |along: f64| {
            let (x, anchor_y) = if broker { (start, top) } else { (stop, bottom) };
            let (other_x, other_y) = if broker { (stop, bottom) } else { (start, top) };
            let part = if length > 0.0 { (along + wide / 2.0) / length } else { 0.0 };
            let y = anchor_y + (other_y - anchor_y) * part.clamp(0.0, 1.0) - 3.0;
            let x = x + (other_x - x).signum() * along;
            (x, y)
        };
        let anchor = if left { Anchor::Start } else { Anchor::End };
        let steps = [16.0, 40.0, 70.0, 110.0, 150.0];
        let places = steps.into_iter().filter(|along| *along < 20.0 || along + wide < length).map(place);
        let class = if arrow.delayed || arrow.arrived.is_none() { "fault" } else { "said" };
        self.svg.text(class, anchor, places, &text);
    }

    /// The times at the left, as many as fit.
    fn times(&mut self) {
        let moments: Vec<_> = self.scale.moments().collect();
        for (time, y) in moments {
            if self.svg.text("time", Anchor::End, [(AXIS - 14.0, y + 4.0)], &clock(time)) {
                self.svg.line("tick", (AXIS - 10.0, y), (AXIS - 2.0, y));
            }
        }
    }

    /// A red line, a ring around whom it concerns, and below the end a sentence;
    /// how much room that needs.
    fn violation(&mut self) -> f64 {
        let Some(broken) = &self.chronicle.violation else { return 0.0 };
        let y = self.scale.y(broken.at);
        self.svg.line("red", (AXIS - 10.0, y), (self.wide - 24.0, y));
        self.svg.text("broken", Anchor::End, [(AXIS - 14.0, y + 4.0)], &clock(broken.at));
        let x = broken.column.and_then(|column| self.x(column));
        if let Some(x) = x {
            self.svg.raw(format_args!("<circle class=\"red\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"9\"/>"));
        }
        let lines =
            wrap(&format!("{}: {}", broken.promise, self.chronicle.wrong().unwrap_or_default()), SENTENCE);
        for (index, line) in lines.iter().enumerate() {
            let base = self.bottom() + 24.0 + index as f64 * (LINE + 3.0);
            self.svg.text("broken", Anchor::Start, [(AXIS, base)], line);
        }
        40.0 + self.after + lines.len() as f64 * (LINE + 3.0)
    }
}

/// The place itself, and the next ones below it.
fn below((x, y): (f64, f64)) -> impl Iterator<Item = (f64, f64)> {
    (0..5).map(move |step| (x, y + f64::from(step) * LINE))
}

/// A drawing and how large it is.
pub(super) struct Framed {
    pub(super) wide: f64,
    pub(super) high: f64,
    label: &'static str,
    body: String,
}

impl Framed {
    /// As an element that begins at this height, if it stands in another drawing.
    pub(super) fn at(&self, y: f64) -> String {
        let Self { wide, high, label, body } = self;
        let place = if y > 0.0 { format!("y=\"{y:.0}\" ") } else { String::new() };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" {place}width=\"{wide:.0}\" height=\"{high:.0}\" \
             viewBox=\"0 0 {wide:.0} {high:.0}\" role=\"img\" aria-label=\"{label}\">\n{body}</svg>\n"
        )
    }
}
