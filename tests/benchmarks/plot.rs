//! The plot: bars for (a) and (b), by rate and by CPU, and the curve of connections, as SVG.

use std::fmt::Write as _;

use roundhouse_tests::bench::thousands;

use crate::report::{Metric, PIPELINED, PIPELINED_CPU, Report, SINGLE};

const WIDTH: f64 = 760.0;
/// The position at which bars begin, and the length of the longest bar.
const LEFT: f64 = 190.0;
const LONGEST: f64 = 440.0;
const ROW: f64 = 24.0;
/// The height of the curve.
const HEIGHT: f64 = 200.0;

/// The plot, one panel below the other.
pub(crate) fn svg(report: &Report) -> String {
    let mut body = String::new();
    let mut y = 0.0;
    let panels = [
        (SINGLE, "(a) Deliveries a second to a room of 1,000, one event in flight"),
        (PIPELINED, "(b) The same with 64 events in flight"),
        // By CPU time too, because the generator bounds the merging floor's rate.
        (PIPELINED_CPU, "(b) CPU of the server for each delivery, in ns: less is better"),
    ];
    for (metric, title) in panels {
        y = bars(&mut body, report, metric, title, y);
    }
    y = curve(&mut body, report, y);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"#222\">\n<rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#fff\"/>\n"
    );
    svg.push_str(&body);
    svg.push_str("</svg>\n");
    svg
}

fn text(body: &mut String, x: f64, y: f64, attributes: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(body, "<text x=\"{x:.0}\" y=\"{y:.0}\" {attributes}>{text}</text>");
}

/// Draws one bar for each server. Returns the position of the next panel.
fn bars(body: &mut String, report: &Report, metric: Metric, title: &str, top: f64) -> f64 {
    let figures: Vec<(&String, f64)> =
        report.servers.iter().filter_map(|server| Some((server, report.median(metric, server)?))).collect();
    let Some(most) = figures.iter().map(|(_, figure)| *figure).max_by(f64::total_cmp) else { return top };
    text(body, 10.0, top + 24.0, "font-weight=\"bold\"", title);
    let mut y = top + 40.0;
    for (server, figure) in figures {
        let colour = match server.as_str() {
            name if name.starts_with("roundhouse") => "#c8452d",
            name if name.starts_with("floor") => "#b9b9b9",
            _ => "#5b7a99",
        };
        let width = figure / most * LONGEST;
        text(body, LEFT - 8.0, y + 13.0, "text-anchor=\"end\"", server);
        let _ = writeln!(body, "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"17\" fill=\"{colour}\"/>");
        let ratio = report.ratio(metric, server).map_or(String::new(), |ratio| format!(" ({ratio:.2})"));
        text(body, LEFT + width + 6.0, y + 13.0, "", &format!("{}{ratio}", thousands(figure, 0)));
        y += ROW;
    }
    y + 12.0
}

/// Draws CPU time and p99 of each build of the host over the number of connections. Returns the position of the end.
fn curve(body: &mut String, report: &Report, top: f64) -> f64 {
    let points: Vec<_> = report.curves.iter().filter(|point| point.curve == "connections").collect();
    let Some(most) = points.iter().map(|point| point.n).max() else { return top };
    let bottom = top + 50.0 + HEIGHT;
    text(
        body,
        10.0,
        top + 24.0,
        "font-weight=\"bold\"",
        "(i) One message a second to each connection: CPU % of one core, and p99 in ms (dashed)",
    );
    let axis = format!("M{LEFT} {} V{bottom} H{}", top + 50.0, LEFT + LONGEST);
    let _ = writeln!(body, "<path d=\"{axis}\" fill=\"none\" stroke=\"#888\"/>");
    for share in [0.0, 50.0, 100.0] {
        let y = bottom - share / 100.0 * HEIGHT + 4.0;
        text(body, LEFT - 6.0, y, "text-anchor=\"end\" font-size=\"10\"", &format!("{share}"));
    }
    let place = |n: usize| LEFT + n as f64 / most as f64 * LONGEST;
    // The smallest levels are too close to each other for labels.
    let mut named: Vec<usize> = points.iter().map(|point| point.n).filter(|n| n * 10 > most).collect();
    named.sort_unstable();
    named.dedup();
    for n in named {
        text(body, place(n), bottom + 16.0, "text-anchor=\"middle\" font-size=\"10\"", &thousands(n as f64, 0));
    }
    for (wanted, unit, dash) in [("CPU %", "%", ""), ("p99 ms", "ms", "stroke-dasharray=\"5 4\"")] {
        for server in &report.servers {
            let (mut path, mut last) = (String::new(), None);
            for point in points.iter().filter(|point| point.server == *server) {
                let figure = point.figure(wanted);
                let (x, y) = (place(point.n), bottom - figure.min(100.0) / 100.0 * HEIGHT);
                let _ = write!(path, "{}{x:.1} {y:.1} ", if path.is_empty() { "M" } else { "L" });
                last = Some((x, y, figure));
            }
            let Some((x, y, figure)) = last else { continue };
            let _ = writeln!(body, "<path d=\"{path}\" fill=\"none\" stroke=\"#c8452d\" stroke-width=\"2\" {dash}/>");
            let label = format!("{server}: {figure:.1} {unit}");
            text(body, x, y - 6.0, "text-anchor=\"end\" font-size=\"11\"", &label);
        }
    }
    bottom + 30.0
}
