//! Figures: grouped horizontal bars as hand-written SVG, readable on light and dark pages.
//!
//! Knows no measurements. Called by the bench's main.

use std::fmt::Write as _;

pub struct Chart<'a> {
    pub title: &'a str,
    /// One name and colour per bar of a group.
    pub series: Vec<(String, &'static str)>,
    pub groups: Vec<(String, Vec<f64>)>,
    /// A value worth a line across the chart: 1.0 where bars are ratios to Redis.
    pub reference: Option<f64>,
    pub unit: &'a str,
    pub logarithmic: bool,
}

pub const REDIS: &str = "#c0584f";
pub const LUAR: &str = "#3d7ea6";
pub const LUAR_MORE: &str = "#7fb069";

const LABEL_WIDTH: f64 = 250.0;
const PLOT_WIDTH: f64 = 520.0;
const VALUE_WIDTH: f64 = 90.0;
const BAR_HEIGHT: f64 = 12.0;
const GROUP_GAP: f64 = 9.0;
const HEAD_HEIGHT: f64 = 62.0;

pub fn bars(chart: &Chart<'_>) -> String {
    let group_height = BAR_HEIGHT * chart.series.len() as f64 + GROUP_GAP;
    let height = HEAD_HEIGHT + group_height * chart.groups.len() as f64 + 8.0;
    let width = LABEL_WIDTH + PLOT_WIDTH + VALUE_WIDTH;
    let values = || chart.groups.iter().flat_map(|(_, values)| values.iter().copied());
    let largest = values().chain(chart.reference).fold(f64::MIN_POSITIVE, f64::max);
    let smallest = values().chain(chart.reference).fold(largest, f64::min).max(1e-9);
    let scale = |value: f64| {
        if chart.logarithmic {
            // From half of the smallest, so that its bar can be seen.
            let (low, high) = ((smallest / 2.0).ln(), largest.ln());
            ((value.max(1e-9).ln() - low) / (high - low)).clamp(0.0, 1.0) * PLOT_WIDTH
        } else {
            value / largest * PLOT_WIDTH
        }
    };

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <style>text{{fill:#24292f}}line{{stroke:#57606a}}@media (prefers-color-scheme:dark)\
         {{text{{fill:#d0d7de}}line{{stroke:#8b949e}}}}</style>\n"
    );
    let _ = writeln!(
        svg,
        "<text x=\"8\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>",
        escape(chart.title)
    );
    let mut x = 8.0;
    for (name, colour) in &chart.series {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.0}\" y=\"34\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"44\">{}</text>",
            x + 16.0,
            escape(name)
        );
        x += 36.0 + 6.5 * name.chars().count() as f64;
    }
    for (index, (label, values)) in chart.groups.iter().enumerate() {
        let top = HEAD_HEIGHT + group_height * index as f64;
        let middle = top + BAR_HEIGHT * values.len() as f64 / 2.0 + 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LABEL_WIDTH - 8.0,
            escape(label)
        );
        for (bar, (value, (_, colour))) in values.iter().zip(&chart.series).enumerate() {
            let y = top + BAR_HEIGHT * bar as f64;
            let length = scale(*value);
            let _ = writeln!(
                svg,
                "<rect x=\"{LABEL_WIDTH:.0}\" y=\"{y:.1}\" width=\"{length:.1}\" \
                 height=\"{:.1}\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 font-size=\"10\">{}{}</text>",
                BAR_HEIGHT - 1.0,
                LABEL_WIDTH + length + 4.0,
                y + 9.0,
                super::report::short(*value),
                escape(chart.unit)
            );
        }
    }
    if let Some(reference) = chart.reference {
        let x = LABEL_WIDTH + scale(reference);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.0}\" x2=\"{x:.1}\" y2=\"{:.0}\" \
             stroke-dasharray=\"4 3\"/>",
            HEAD_HEIGHT - 6.0,
            height - 8.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let svg = bars(&Chart {
            title: "a < b",
            series: vec![("one".into(), REDIS), ("two".into(), LUAR)],
            groups: vec![("group & co".into(), vec![4.0, 1.0])],
            reference: Some(2.0),
            unit: "×",
            logarithmic: false,
        });
        assert!(svg.contains("a &lt; b") && svg.contains("group &amp; co"));
        assert!(svg.contains("width=\"520.0\"") && svg.contains("width=\"130.0\""));
        assert!(svg.contains("x1=\"510.0\""));
    }
}
