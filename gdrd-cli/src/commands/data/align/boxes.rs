//! Boxes from a file: a tracker's, a dataset's, or the `faces.csv` of an earlier call.

use std::collections::BTreeMap;
use std::path::Path;

use gdrd_core::error::{Error, Result};
use gdrd_core::nn::weights::first_of;
use gdrd_student::front_end::{Bounds, Landmarks};

use super::photographs::Photograph;

/// Columns of the landmarks.
pub(super) const POINTS: [&str; 10] = ["x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5"];
/// Columns of the box.
pub(super) const BOX: [&str; 4] = ["left", "top", "width", "height"];

/// A face of which a file says where it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Given {
    pub(super) bounds: Bounds,
    pub(super) landmarks: Option<Landmarks>,
    pub(super) score: Option<f32>,
}

/// Faces by the names of photographs.
#[derive(Debug)]
pub(super) struct Known {
    file: String,
    faces: BTreeMap<String, Vec<Given>>,
}

impl Known {
    /// Reads a file; all lines that are wrong are one error.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = gdrd_core::files::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let file = path.display().to_string();
        let wrong = |what: String| Error::data(format!("`{file}`: {what}"));
        // Spreadsheets put a mark in front.
        let mut records = records(text.strip_prefix('\u{feff}').unwrap_or(&text)).into_iter();
        let header = records.next().map(|(_, fields)| fields).unwrap_or_default();
        let column = |name: &str| header.iter().position(|found| found.eq_ignore_ascii_case(name));
        let missing: Vec<&str> = ["image"].into_iter().chain(BOX).filter(|name| column(name).is_none()).collect();
        if !missing.is_empty() {
            return Err(wrong(format!(
                "expected a first line with the columns image, left, top, width, height, and for landmarks x1, y1 to x5, y5; \
                 missing {}, found {}",
                missing.join(", "),
                if header.is_empty() { "nothing".to_string() } else { header.join(", ") }
            )));
        }
        let points: Vec<usize> = POINTS.iter().filter_map(|name| column(name)).collect();
        if !points.is_empty() && points.len() != POINTS.len() {
            return Err(wrong(format!(
                "expected ten columns of landmarks (x1, y1 to x5, y5) or none, found {}",
                points.len()
            )));
        }
        let boxes: Vec<usize> = BOX.iter().filter_map(|name| column(name)).collect();
        let (image, score) = (column("image").unwrap_or_default(), column("score"));
        let mut faces: BTreeMap<String, Vec<Given>> = BTreeMap::new();
        let mut problems = Vec::new();
        for (line, record) in records {
            let read = match record.len() == header.len() {
                true => given(&record, &boxes, &points, score),
                false => Err(format!("{} fields, expected {} as in the first line", record.len(), header.len())),
            };
            match read {
                Ok(given) => faces.entry(record[image].replace('\\', "/")).or_default().push(given),
                Err(what) => problems.push(format!("line {line}: {what}")),
            }
        }
        if !problems.is_empty() {
            let shown: Vec<&str> = problems.iter().take(20).map(String::as_str).collect();
            let more = if problems.len() > 20 { format!("\nand {} more", problems.len() - 20) } else { String::new() };
            return Err(wrong(format!("{} lines are wrong:\n{}{more}", problems.len(), shown.join("\n"))));
        }
        Ok(Self { file, faces })
    }

    /// Refuses images that are not among the photographs.
    pub(super) fn check(&self, photographs: &[Photograph], folder: &Path) -> Result<()> {
        let names: std::collections::BTreeSet<&str> = photographs.iter().map(|one| one.name.as_str()).collect();
        let missing: Vec<&String> = self.faces.keys().filter(|name| !names.contains(name.as_str())).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::data(format!(
            "`{}` names {} images that are not in `{}`: {}; expected paths from there, such as `{}`",
            self.file,
            missing.len(),
            folder.display(),
            first_of(missing.len(), missing.iter().map(|name| format!("`{name}`"))),
            photographs.first().map_or("Ann/1.jpg", |first| &first.name),
        )))
    }

    /// The faces in a photograph.
    pub(super) fn of(&self, photograph: &Photograph) -> &[Given] {
        self.faces.get(&photograph.name).map_or(&[], Vec::as_slice)
    }
}

/// The lines of a CSV file (RFC 4180) with their numbers, each as its fields; empty lines are none.
fn records(text: &str) -> Vec<(usize, Vec<String>)> {
    let (mut records, mut fields, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begun, mut quoted) = (1, 1, false);
    let mut characters = text.chars().chain(['\n']).peekable();
    while let Some(character) = characters.next() {
        line += usize::from(character == '\n');
        match character {
            // Two quotes in a quoted field are one.
            '"' if quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' if quoted || field.trim().is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field).trim().to_string()),
            '\n' if !quoted => {
                fields.push(std::mem::take(&mut field).trim().to_string());
                let record = std::mem::take(&mut fields);
                if record != [""] {
                    records.push((begun, record));
                }
                begun = line;
            }
            other => field.push(other),
        }
    }
    // A quote that was never closed: what is behind it is one field, which will not fit.
    if quoted {
        fields.push(field);
        records.push((begun, fields));
    }
    records
}

fn given(
    record: &[String],
    boxes: &[usize],
    points: &[usize],
    score: Option<usize>,
) -> std::result::Result<Given, String> {
    let text = |at: usize| record[at].as_str();
    let number = |name: &str, at: usize| match text(at).parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("{name} is `{}`, expected a finite number", text(at))),
    };
    let mut sides = [0.0; 4];
    for (side, (name, at)) in sides.iter_mut().zip(BOX.iter().zip(boxes)) {
        *side = number(name, *at)?;
    }
    let [left, top, width, height] = sides;
    if width <= 0.0 || height <= 0.0 {
        return Err(format!("the box has {width} x {height} pixels, expected more than 0"));
    }
    let landmarks = match points.iter().all(|at| text(*at).is_empty()) {
        true => None,
        false => {
            let mut numbers: Landmarks = [[0.0; 2]; 5];
            for (value, (name, at)) in numbers.as_flattened_mut().iter_mut().zip(POINTS.iter().zip(points)) {
                *value = number(name, *at)?;
            }
            Some(numbers)
        }
    };
    let score = score.filter(|at| !text(*at).is_empty()).map(|at| number("score", at)).transpose()?;
    Ok(Given { bounds: Bounds { left, top, width, height }, landmarks, score })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Known> {
        let path = std::env::temp_dir().join(format!("gdrd-boxes-{}-{}.csv", std::process::id(), text.len()));
        std::fs::write(&path, text).expect("written");
        let read = Known::read(&path);
        std::fs::remove_file(&path).expect("removed");
        read
    }

    #[test]
    fn boxes_come_with_and_without_landmarks() {
        let known = read(
            "\u{feff}Image, left, top, width, height, x1,y1,x2,y2,x3,y3,x4,y4,x5,y5,camera\n\
             \"a, b.jpg\",1,2,3,4,,,,,,,,,,,north\nc\\d.jpg,-1,2.5,3e1,4,1,2,3,4,5,6,7,8,9,10,\n",
        );
        let known = known.expect("boxes");
        let plain = known.faces["a, b.jpg"][0];
        assert_eq!((plain.bounds.height, plain.landmarks, plain.score), (4.0, None, None));
        let whole = known.faces["c/d.jpg"][0];
        assert_eq!(whole.bounds, Bounds { left: -1.0, top: 2.5, width: 30.0, height: 4.0 });
        assert_eq!(whole.landmarks.expect("landmarks")[4], [9.0, 10.0]);
    }

    #[test]
    fn every_wrong_line_is_named() {
        let text =
            "image,left,top,width,height\na.jpg,1,2,3,4\na.jpg,NaN,2,3,4\na.jpg,1,2,3\na.jpg,1,2,0,4\na.jpg,1,2,x,4\n";
        let error = read(text).expect_err("four lines").to_string();
        for expected in [
            "4 lines are wrong",
            "line 3: left is `NaN`, expected a finite number",
            "line 4: 4 fields, expected 5",
            "line 5: the box has 0 x 4 pixels",
            "line 6: width is `x`",
        ] {
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let error = read("image,left,top,width\n").expect_err("no height").to_string();
        assert!(error.contains("missing height, found image, left, top, width"), "{error}");
        let error = read("image,left,top,width,height,x1,y1\n").expect_err("two of ten").to_string();
        assert!(error.contains("or none, found 2"), "{error}");
        assert!(read("").expect_err("empty").to_string().contains("found nothing"));
    }
}
