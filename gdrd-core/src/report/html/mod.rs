//! `report.html`: one file that opens offline, without a script.

mod compare;
mod faces;
mod plot;
mod run;
mod training;

use std::fmt::Write;

use super::table::Table;
use super::view::RunView;
use crate::error::Result;

pub(super) use compare::{comparison, groups, protocols};

/// The page of one run, or of several runs side by side. Equal views give equal pages.
///
/// # Errors
/// If what was measured does not fit together.
pub fn page(runs: &[RunView]) -> Result<String> {
    let (title, lead) = match runs {
        [run] => (run.name.clone(), run::lead(run)?),
        _ => (format!("{} runs compared", runs.len()), compare::lead(runs)),
    };
    let mut body = Body::default();
    if let [run] = runs {
        run::sections(run, &mut body)?;
    } else {
        compare::sections(runs, &mut body)?;
    }
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    page += "<meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n";
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(page, "<title>{} - gdrd</title>\n<style>\n{}</style>", escape(&title), include_str!("page.css"));
    page += "</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the results</a>\n";
    let _ = writeln!(page, "<header>\n<h1>{}</h1>\n{lead}</header>", escape(&title));
    page += "<nav aria-label=\"Sections\">\n<ul>\n";
    for (id, name) in &body.sections {
        let _ = writeln!(page, "<li><a href=\"#{id}\">{}</a></li>", escape(name));
    }
    let _ = writeln!(page, "</ul>\n</nav>\n<main id=\"main\">\n{}</main>", body.text);
    page += "<footer><p>Written by gdrd. Figures are means with standard errors (\u{b1}) or 95 % intervals [ ], as marked. ";
    page += "It must not decide about anybody.</p></footer>\n</body>\n</html>\n";
    Ok(page)
}

/// The sections of a page as they are written.
#[derive(Default)]
pub(super) struct Body {
    text: String,
    sections: Vec<(String, String)>,
    ids: usize,
}

impl Body {
    /// A section with its heading.
    fn section(&mut self, id: &str, name: &str, content: &str) {
        if content.is_empty() {
            return;
        }
        let _ = writeln!(
            self.text,
            "<section aria-labelledby=\"{id}-h\" id=\"{id}\">\n<h2 id=\"{id}-h\">{}</h2>\n{content}</section>",
            escape(name)
        );
        self.sections.push((id.to_string(), name.to_string()));
    }

    /// An id that the page has nowhere else.
    fn id(&mut self, what: &str) -> String {
        self.ids += 1;
        format!("{what}-{}", self.ids)
    }
}

/// Text as HTML, in elements and in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Whatever would turn or hide the text around it.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\0'..='\u{8}' | '\u{e}'..='\u{1f}' => {
                out.push('\u{fffd}')
            }
            c => out.push(c),
        }
    }
    out
}

/// A paragraph.
fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// A list of remarks; nothing if there are none.
fn remarks(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let items: String = lines.iter().map(|line| format!("<li>{}</li>\n", escape(line))).collect();
    format!("<ul class=\"remarks\">\n{items}</ul>\n")
}

/// A table with its caption, in a box of its own that scrolls where the screen is narrow. `class` says what rows are.
fn table(caption: &str, table: &Table, class: impl Fn(&[String]) -> Option<&'static str>) -> String {
    let inner = table.to_html(&escape, class);
    let caption = escape(caption);
    format!(
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\">\n<table>\n<caption><span>{caption}</span></caption>\n\
         {inner}</table>\n</div>\n"
    )
}

/// Bytes as a `data:` address of a PNG.
fn png(base64: &str) -> String {
    format!("data:image/png;base64,{}", escape(base64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        let wild = "<script>alert('x')</script>&\"\u{202e}\u{0}";
        let safe = escape(wild);
        assert_eq!(safe, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}\u{fffd}");
        let run =
            RunView { name: wild.into(), recipe: wild.into(), provenance: vec![wild.into()], ..RunView::default() };
        let page = page(&[run]).expect("a page");
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains(&safe));
    }
}
