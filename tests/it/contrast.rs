//! Contrast of the colours of `report.html` by WCAG 2.2: 4.5 for text (1.4.3), 3 for what a chart is read by (1.4.11).

use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../gdrd-core/src/report/html/page.css");
const DARK: &str = "@media (prefers-color-scheme: dark)";

/// The colours that a part of the sheet names; those that let some through, as they are on its paper.
fn colours(css: &str) -> BTreeMap<String, [f64; 3]> {
    let named = css.split("--").skip(1).filter_map(|rest| {
        let (name, value) = rest.split_once(": #")?;
        let digits = value.split_once(';')?.0;
        let byte = |at: usize| Some(f64::from(u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?) / 255.0);
        Some((name.to_string(), ([byte(0)?, byte(1)?, byte(2)?], byte(3).unwrap_or(1.0))))
    });
    let named: BTreeMap<String, ([f64; 3], f64)> = named.collect();
    let paper = named["paper"].0;
    let on_paper = |(colour, alpha): ([f64; 3], f64)| {
        std::array::from_fn(|channel| alpha * colour[channel] + (1.0 - alpha) * paper[channel])
    };
    named.into_iter().map(|(name, colour)| (name, on_paper(colour))).collect()
}

/// The ratio of two colours, `(L1 + 0.05) / (L2 + 0.05)` of their relative luminances.
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let linear = |value: f64| if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) };
    let luminance = |c: [f64; 3]| 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
    let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
    a.max(b) / a.min(b)
}

#[test]
fn the_colours_of_a_page_can_be_told_apart_in_light_and_dark() {
    assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 1e-9, "black on white");
    let (light, rest) = PAGE.split_once(DARK).expect("two sets of colours");
    let (light, dark) = (colours(light), colours(rest));
    assert_eq!(light.keys().collect::<Vec<_>>(), dark.keys().collect::<Vec<_>>());
    for (set, name) in [(&light, "light"), (&dark, "dark")] {
        let text =
            ["ink", "faint", "link"].into_iter().flat_map(|ink| ["paper", "soft"].map(|ground| (ink, ground, 4.5)));
        let quoted = [("quoted-ink", "quoted", 4.5)];
        let lines = ["s0", "s1", "s2", "s3", "s4", "s5"].map(|line| (line, "paper", 3.0));
        for (ink, ground, least) in text.chain(quoted).chain(lines) {
            let found = contrast(set[ink], set[ground]);
            assert!(found >= least, "{name}: `{ink}` on `{ground}` has {found:.2}, expected {least}");
        }
    }
}
