//! Parquet files that say of themselves what is not so, written as the format is.

use std::io::Write;

/// A value in Thrift's compact form.
enum Value {
    Bool(bool),
    Number(i64),
    Bytes(Vec<u8>),
    /// The number of elements that it says it has, if another than it has.
    Structs(Vec<Fields>, Option<u64>),
    Struct(Fields),
}

type Fields = Vec<(u8, Value)>;

fn varint(mut number: u64, to: &mut Vec<u8>) {
    while number > 127 {
        to.push(number as u8 | 128);
        number >>= 7;
    }
    to.push(number as u8);
}

fn zigzag(number: i64, to: &mut Vec<u8>) {
    varint(((number << 1) ^ (number >> 63)) as u64, to);
}

/// Fields in the order of their numbers.
fn fields(all: &Fields, to: &mut Vec<u8>) {
    let mut last = 0;
    for (number, value) in all {
        let kind = match value {
            Value::Bool(true) => 1,
            Value::Bool(false) => 2,
            Value::Number(_) => 6,
            Value::Bytes(_) => 8,
            Value::Structs(..) => 9,
            Value::Struct(_) => 12,
        };
        to.push(((number - last) << 4) | kind);
        last = *number;
        match value {
            Value::Bool(_) => {}
            Value::Number(number) => zigzag(*number, to),
            Value::Bytes(bytes) => {
                varint(bytes.len() as u64, to);
                to.extend_from_slice(bytes);
            }
            Value::Structs(all, said) => {
                to.push(0xfc);
                varint(said.unwrap_or(all.len() as u64), to);
                all.iter().for_each(|one| fields(one, to));
            }
            Value::Struct(one) => fields(one, to),
        }
    }
    to.push(0);
}

const HUGE: i64 = i32::MAX as i64;
const PLAIN: i64 = 0;
const DELTA: i64 = 5;
const DELTA_TEXT: i64 = 7;
const DICTIONARY: i64 = 8;

/// A page whose header says these things.
fn page(kind: i64, said: usize, bytes: &[u8], about: Fields) -> Vec<u8> {
    let place = [(0, 5), (2, 7), (3, 8)].into_iter().find(|(known, _)| *known == kind).expect("a kind of page").1;
    let mut all = Vec::new();
    let size = Value::Number(bytes.len() as i64);
    let head =
        vec![(1, Value::Number(kind)), (2, Value::Number(said as i64)), (3, size), (place, Value::Struct(about))];
    fields(&head, &mut all);
    all.extend_from_slice(bytes);
    all
}

fn numbers<const N: usize>(all: [i64; N]) -> Fields {
    (1..).zip(all.map(Value::Number)).collect()
}

/// A page of so many values, which says that it becomes `said` bytes.
fn data(values: i64, encoding: i64, said: usize, bytes: &[u8]) -> Vec<u8> {
    page(0, said, bytes, numbers([values, encoding, 3, 3]))
}

/// The same, which is not compressed.
fn whole(values: i64, encoding: i64, bytes: &[u8]) -> Vec<u8> {
    data(values, encoding, bytes.len(), bytes)
}

fn dictionary(values: i64, bytes: &[u8]) -> Vec<u8> {
    page(2, bytes.len(), bytes, numbers([values, PLAIN]))
}

/// A length in four bytes, and the bytes.
fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

/// A column: its type, its compression, its pages.
type Column = (i64, i64, Vec<u8>);

fn node(name: &[u8], kind: Option<i64>, children: i64) -> Fields {
    let kind = kind.map(|kind| (1, Value::Number(kind)));
    let rest = [(3, Value::Number(0)), (4, Value::Bytes(name.to_vec())), (5, Value::Number(children))];
    kind.into_iter().chain(rest).collect()
}

/// A file with this footer behind these pages.
fn file(pages: &[u8], footer: &Fields) -> Vec<u8> {
    let mut end = Vec::new();
    fields(footer, &mut end);
    [b"PAR1", pages, &end, &(end.len() as u32).to_le_bytes(), b"PAR1"].concat()
}

/// A file of `rows` rows with the columns `image.bytes` and `label`.
fn rows(rows: i64, image: Column, label: Column) -> Vec<u8> {
    let (mut pages, mut chunks) = (Vec::new(), Vec::new());
    for (kind, codec, bytes) in [image, label] {
        let about = vec![
            (1, Value::Number(kind)),
            (4, Value::Number(codec)),
            (5, Value::Number(rows)),
            (7, Value::Number(bytes.len() as i64)),
            (9, Value::Number(4 + pages.len() as i64)),
        ];
        let about = vec![(2, Value::Number(0)), (3, Value::Struct(about))];
        pages.extend_from_slice(&bytes);
        chunks.push(about);
    }
    let group = vec![(1, Value::Structs(chunks, None)), (3, Value::Number(rows))];
    let nodes = vec![node(b"schema", None, 2), node(b"image.bytes", Some(6), 0), node(b"label", Some(6), 0)];
    let nodes = Value::Structs(nodes, None);
    file(&pages, &vec![(2, nodes), (3, Value::Number(rows)), (4, Value::Structs(vec![group], None))])
}

/// A file of a row, whose image is in these pages.
fn image(codec: i64, pages: Vec<u8>) -> Vec<u8> {
    rows(1, (6, codec, pages), (6, 0, whole(1, PLAIN, &text(b"Ann"))))
}

/// A file of some rows, whose labels are in these pages.
fn label(count: i64, pages: Vec<u8>) -> Vec<u8> {
    let mut places = vec![1];
    varint(2 * count as u64, &mut places);
    places.push(0);
    let image = [dictionary(1, &text(b"no image")), whole(count, DICTIONARY, &places)].concat();
    rows(count, (6, 0, image), (6, 0, pages))
}

/// A file with these nodes of columns, and no rows.
fn schema(nodes: Vec<Fields>) -> Vec<u8> {
    let nodes = Value::Structs(nodes, None);
    file(b"", &vec![(2, nodes), (3, Value::Number(0)), (4, Value::Structs(Vec::new(), None))])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(bytes).and_then(|()| writer.finish()).expect("compressed")
}

/// Differences: numbers of a block, its parts, how many there are, and the first; then what follows.
fn differences(head: [u64; 3], first: i64, rest: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    head.into_iter().for_each(|number| varint(number, &mut all));
    zigzag(first, &mut all);
    [&all, rest].concat()
}

/// The files, each with its name.
pub(crate) fn files() -> Vec<(&'static str, Vec<u8>)> {
    let large = text(&vec![0; 1 << 20]);
    let packed = gzip(&large);
    let once = differences([128, 4, 1], 0, b"");
    // Nobody's name is as long as this, and a dictionary could give it to every row.
    let long = [dictionary(1, &text(&[b'a'; 4000])), whole(3000, DICTIONARY, &[1, 0xf0, 0x2e, 0])].concat();
    let levels = vec![
        (1, Value::Number(1)),
        (2, Value::Number(0)),
        (3, Value::Number(1)),
        (4, Value::Number(PLAIN)),
        (5, Value::Number(HUGE)),
        (6, Value::Number(0)),
        (7, Value::Bool(false)),
    ];
    let deep = |name: &[u8], depth: usize, leaves: usize| {
        let above = (1..depth).map(|_| node(name, None, 1)).chain([node(name, None, leaves as i64)]);
        let leaves = (0..leaves).map(|_| node(b"a", Some(6), 0));
        schema([node(b"schema", None, 1)].into_iter().chain(above).chain(leaves).collect())
    };
    let nested = (0..200).fold(Vec::new(), |inner, _| vec![(9, Value::Struct(inner))]);
    let groups = vec![
        (2, Value::Structs(vec![node(b"schema", None, 0)], None)),
        (3, Value::Number(0)),
        (4, Value::Structs(Vec::new(), Some(HUGE as u64))),
    ];
    let cut = whole(1, PLAIN, &text(b"no image"));
    let cut = cut[..cut.len() - 4].to_vec();
    let mut length = label(1, whole(1, PLAIN, &text(b"Ann")));
    let end = length.len() - 8;
    length[end..end + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    vec![
        ("good", label(2, whole(2, PLAIN, &[text(b"Ann"), text(b"Bob")].concat()))),
        ("large", image(2, data(1, PLAIN, large.len(), &packed))),
        ("snappy-length", image(1, data(1, PLAIN, HUGE as usize, &[0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0, 0, 0]))),
        ("gzip-length", image(2, data(1, PLAIN, HUGE as usize, &packed))),
        ("gzip-longer", image(2, data(1, PLAIN, 100, &packed))),
        ("gzip-shorter", image(2, data(1, PLAIN, large.len() + 1, &packed))),
        ("page-size", image(0, cut)),
        ("values", label(1, whole(HUGE, PLAIN, &text(b"Ann")))),
        ("dictionary-values", label(1, [dictionary(HUGE, &text(b"Anne")), whole(1, DICTIONARY, &[1, 2, 0])].concat())),
        ("dictionary-place", label(1, [dictionary(1, &text(b"Ann")), whole(1, DICTIONARY, &[8, 2, 9])].concat())),
        ("dictionary-lacks", label(1, whole(1, DICTIONARY, &[1, 2, 0]))),
        ("dictionary-width", label(1, [dictionary(1, &text(b"Ann")), whole(1, DICTIONARY, &[60, 2, 0])].concat())),
        ("delta-values", label(1, whole(1, DELTA_TEXT, &differences([128, 4, 1 << 40], 0, b"")))),
        ("delta-parts", label(2, whole(2, DELTA_TEXT, &differences([1 << 50, 1 << 40, 2], 0, b"\0")))),
        ("delta-block", label(2, whole(2, DELTA_TEXT, &differences([1 << 62, 1, 2], 0, b"\0\x40\0")))),
        ("delta-zero", label(2, whole(2, DELTA_TEXT, &differences([0, 1, 2], 0, b"\0\0\0")))),
        ("delta-begins", label(1, whole(1, DELTA_TEXT, &[differences([128, 4, 1], HUGE, b""), once].concat()))),
        ("delta-of-text", label(1, whole(1, DELTA, &differences([128, 4, 1], 0, b"")))),
        ("long-texts", label(3000, long)),
        ("levels", image(0, page(3, 4, &text(b""), levels))),
        ("children", schema(vec![node(b"schema", None, HUGE)])),
        ("columns-deep", deep(b"a", 40, 1)),
        ("columns-named", deep(&[b'a'; 300], 30, 120)),
        ("structs-deep", file(b"", &nested)),
        ("groups", file(b"", &groups)),
        ("footer-length", length),
    ]
}
