//! A gallery of random entries, searched: milliseconds and MiB. Writes the entries and what was found for `tests/bench/gallery.py`, which
//! searches the same ones with FAISS and usearch. With `save`, the gallery is saved and opened too.
//!
//!     cargo run --release --example search -- student.safetensors 1000000 FOLDER [save]
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::io::Write;
use std::time::Instant;

use gdrd_student::{Embedding, Error, FaceEncoder, Gallery};

/// Numbers in `[-1, 1)` (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// The most memory that the process had, in MiB; zero where the system does not say.
fn most_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [student, count, folder, ..] = &arguments[..] else {
        return Err(Error::data("expected a student file, a number of entries, a folder, and perhaps `save`"));
    };
    let count: usize = count.parse().map_err(|_| Error::data(format!("`{count}`: expected a number")))?;
    let encoder = FaceEncoder::open(student)?;
    let width = encoder.header().card.embedding.unwrap_or(0);
    let mut random = Random(7);
    let mut face = || -> Result<Embedding, Error> {
        let values: Vec<f32> = (0..width).map(|_| random.next()).collect();
        encoder.embedding(&values, 16)
    };
    let path = |name: &str| std::path::Path::new(folder).join(name);
    let create = |name: &str| std::fs::File::create(path(name)).map_err(|e| Error::io(path(name), e));
    let bytes = |face: &Embedding| face.values().iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    // Entries that lie there from an earlier call are the same ones.
    let lies = std::fs::metadata(path("entries.f32")).is_ok_and(|file| file.len() == 4 * (count * width) as u64);
    let mut file = if lies { None } else { Some(std::io::BufWriter::new(create("entries.f32")?)) };
    let mut gallery = Gallery::new(&encoder);
    for at in 0..count {
        let face = face()?;
        if let Some(file) = &mut file {
            file.write_all(&bytes(&face)).map_err(|e| Error::io(path("entries.f32"), e))?;
        }
        gallery.enrol(&at.to_string(), &face)?;
    }
    if let Some(file) = file {
        let file = file.into_inner().map_err(|e| Error::io(path("entries.f32"), e.into_error()))?;
        file.sync_all().map_err(|e| Error::io(path("entries.f32"), e))?;
    }
    let probes = (0..64).map(|_| face()).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<u8> = probes.iter().flat_map(&bytes).collect();
    std::fs::write(path("probes.f32"), all).map_err(|e| Error::io(path("probes.f32"), e))?;
    let each = |from: Instant, of: usize| from.elapsed().as_secs_f64() * 1e3 / of as f64;
    gallery.search(&probes[0], 10)?;
    let start = Instant::now();
    for probe in &probes[..16] {
        gallery.search(probe, 10)?;
    }
    let one = each(start, 16);
    let start = Instant::now();
    let found = gallery.search_all(&probes, 10)?;
    let many = each(start, 64);
    println!("one {one:.3} many {many:.3} memory {:.0} width {width}", most_memory());
    let line =
        |found: &Vec<gdrd_student::Match>| found.iter().map(|one| one.person.clone()).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = found.iter().map(line).collect();
    std::fs::write(path("found.txt"), lines.join("\n")).map_err(|e| Error::io(path("found.txt"), e))?;
    if arguments.len() > 3 {
        let start = Instant::now();
        gallery.save(path("people.gallery"))?;
        println!("save {:.0} ms", each(start, 1));
        let start = Instant::now();
        let opened = Gallery::open(path("people.gallery"))?;
        println!("open {:.0} ms, {} entries", each(start, 1), opened.len());
    }
    Ok(())
}
