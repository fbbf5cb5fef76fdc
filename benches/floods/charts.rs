//! Pictures of a run: what a request costs, how long it takes, and how the cost grows.

use crate::report::Report;
use crate::run::Row;
use crate::scenario::IDLE;
use plotters::prelude::*;
use plotters::style::full_palette;
use std::error::Error;
use std::path::Path;
use test_support::machine::Placement;

type Drawn = Result<(), Box<dyn Error + Send + Sync>>;
type Points = Vec<(f64, f64)>;

const COLORS: [RGBColor; 10] = [
    full_palette::RED_700,
    full_palette::BLUE_600,
    full_palette::GREEN_600,
    full_palette::ORANGE_600,
    full_palette::PURPLE_600,
    full_palette::TEAL_600,
    full_palette::BROWN_600,
    full_palette::PINK_600,
    full_palette::GREY_600,
    full_palette::LIME_800,
];

/// Draws what the report has the figures for.
pub(crate) fn draw(report: &Report, folder: &Path) -> Drawn {
    cost(report, &folder.join("cost.svg"))?;
    latency(report, &folder.join("latency.svg"))?;
    growth(report, &folder.join("growth.svg"))?;
    idle(report, &folder.join("idle.svg"))
}

fn rows<'a>(report: &'a Report, name: &str) -> &'a [Row] {
    report.scenarios.iter().find(|(scenario, _)| scenario.name == name).map_or(&[], |(_, found)| &found.rows)
}

fn cost_at_limit(row: &Row) -> f64 {
    row.half(Placement::Limit).map_or(0.0, |half| half.cpu[1])
}

/// One series for each server, without the second baseline.
fn by_server(all: Vec<(String, Points)>) -> Vec<(String, Points)> {
    let mut series: Vec<(String, Points)> = Vec::new();
    for (name, points) in all {
        match series.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => {
                let fresh: Points =
                    points.into_iter().filter(|(x, _)| known.iter().all(|(other, _)| x != other)).collect();
                known.extend(fresh);
            }
            None => series.push((name, points)),
        }
    }
    series
}

fn cost(report: &Report, path: &Path) -> Drawn {
    let mut bars: Vec<(String, f64)> = Vec::new();
    for row in rows(report, "immediate, 64 clients, payload 1") {
        if bars.iter().all(|(name, _)| *name != row.entry.name()) {
            bars.extend(row.half(Placement::Limit).map(|half| (row.entry.name(), half.cpu[1])));
        }
    }
    let Some(most) = bars.iter().map(|(_, cost)| *cost).reduce(f64::max) else { return Ok(()) };
    let area = SVGBackend::new(path, (760, 60 + 40 * bars.len() as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("processor time of a request, 64 clients (us)", ("sans-serif", 18))
        .margin(12)
        .build_cartesian_2d(-most * 0.22..most * 1.12, 0.0..bars.len() as f64)?;
    for (n, (name, cost)) in bars.iter().rev().enumerate() {
        let (low, high) = (n as f64 + 0.15, n as f64 + 0.85);
        let color = if name == "pollstack" { COLORS[0] } else { COLORS[1] };
        let label = ("sans-serif", 15).into_font();
        chart.draw_series([Rectangle::new([(0.0, low), (*cost, high)], color.filled())])?;
        chart.draw_series([
            Text::new(name.clone(), (-most * 0.21, high - 0.15), label.clone()),
            Text::new(format!("{cost:.1}"), (*cost + most * 0.01, high - 0.15), label),
        ])?;
    }
    Ok(area.present()?)
}

fn latency(report: &Report, path: &Path) -> Drawn {
    let rows = rows(report, "immediate, 3000 a second").iter();
    let all = rows.flat_map(|row| row.halves.iter().map(move |half| (row, half))).map(|(row, half)| {
        let at = |p: f64| (1.0 / (1.0 - p / 100.0), half.tally.latency.value_at_percentile(p) as f64 / 1e3);
        (row.entry.name(), [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9].map(at).to_vec())
    });
    let name = |x: &f64| format!("{}%", 100.0 * (1.0 - 1.0 / x));
    lines(path, "latency at 3000 requests a second (us), by percentile", &by_server(all.collect()), name)
}

fn growth(report: &Report, path: &Path) -> Drawn {
    let all = [10, 64, 100].into_iter().flat_map(|clients| {
        let rows = rows(report, &format!("immediate, {clients} clients, payload 1"));
        rows.iter().map(move |row| (row.entry.name(), vec![(clients as f64, cost_at_limit(row))]))
    });
    let name = |x: &f64| format!("{x}");
    lines(path, "processor time of a request (us), by clients", &by_server(all.collect()), name)
}

fn idle(report: &Report, path: &Path) -> Drawn {
    let scenarios = report.scenarios.iter().filter(|(scenario, _)| scenario.name.starts_with(IDLE));
    let all = scenarios
        .flat_map(|(_, found)| &found.rows)
        .map(|row| (row.entry.kind.name().to_owned(), vec![(1.0 + row.entry.idle as f64, cost_at_limit(row))]));
    let name = |x: &f64| format!("{}", x.round());
    lines(path, "processor time of a request (us), by idle connections beside it", &by_server(all.collect()), name)
}

/// Lines on logarithmic axes.
fn lines(path: &Path, caption: &str, series: &[(String, Points)], name: impl Fn(&f64) -> String) -> Drawn {
    let points = || series.iter().flat_map(|(_, points)| points.iter().copied());
    let most = |of: fn((f64, f64)) -> f64| points().map(of).fold(f64::MIN, f64::max);
    let least = |of: fn((f64, f64)) -> f64| points().map(of).fold(f64::MAX, f64::min);
    if most(|p| p.0) <= least(|p| p.0) {
        return Ok(()); // nothing grows
    }
    let (x, y) = (least(|p| p.0)..most(|p| p.0), least(|p| p.1) * 0.8..most(|p| p.1) * 1.2);
    let area = SVGBackend::new(path, (760, 460)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_label_formatter(&name).draw()?;
    for ((server, points), color) in series.iter().zip(COLORS) {
        let width = if server == "pollstack" { 3 } else { 1 };
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(width)).point_size(3);
        chart
            .draw_series(line)?
            .label(server)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).draw()?;
    Ok(area.present()?)
}
