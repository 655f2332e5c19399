//! Event files that TensorBoard reads: TFRecords with masked CRC-32C, each an `Event` of `tensorflow/core/util/event.proto`.
//!
//! Of the protocol buffers only the few fields that are used are written: the wire format is a list of numbered fields.

/// An event file as it grows.
pub struct EventFile {
    bytes: Vec<u8>,
}

/// A protocol buffer as it grows.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// An integer, a field of wire type 0; zero is left out, as it is the default.
    fn number(mut self, field: u64, value: u64) -> Self {
        if value == 0 {
            return self;
        }
        varint(&mut self.0, field << 3);
        varint(&mut self.0, value);
        self
    }

    /// A `double`, a field of wire type 1.
    fn double(mut self, field: u64, value: f64) -> Self {
        varint(&mut self.0, field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A `float`, a field of wire type 5.
    fn float(mut self, field: u64, value: f32) -> Self {
        varint(&mut self.0, field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Bytes, text or a message, a field of wire type 2.
    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        varint(&mut self.0, field << 3 | 2);
        varint(&mut self.0, value.len() as u64);
        self.0.extend(value);
        self
    }

    /// Another message.
    fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl EventFile {
    /// A file that begins at `time`, in seconds since 1970.
    pub fn new(time: f64) -> Self {
        let mut file = Self { bytes: Vec::new() };
        file.record(&Message::default().double(1, time).bytes(3, b"brain.Event:2"));
        file
    }

    /// That a program begins to write: what was read of steps from 0 on, in an earlier file, is void.
    pub fn session(&mut self, time: f64) {
        /// `SessionLog.START`.
        const START: u64 = 1;
        self.record(&Message::default().double(1, time).message(7, Message::default().number(1, START)));
    }

    /// Values by their tags, after `step` steps. What is not finite is written as it is, TensorBoard marks it.
    pub fn scalars<'a>(&mut self, time: f64, step: u64, values: impl IntoIterator<Item = (&'a str, f64)>) {
        let mut summary = Message::default();
        for (tag, value) in values {
            summary = summary.message(1, Message::default().bytes(1, tag.as_bytes()).float(2, value as f32));
        }
        self.summary(time, step, summary);
    }

    /// A picture as PNG, of `width` by `height` pixels, RGB.
    pub fn image(&mut self, time: f64, step: u64, tag: &str, (width, height): (u64, u64), png: &[u8]) {
        let image = Message::default().number(1, height).number(2, width).number(3, 3).bytes(4, png);
        self.summary(
            time,
            step,
            Message::default().message(1, Message::default().bytes(1, tag.as_bytes()).message(4, image)),
        );
    }

    /// A text, which TensorBoard shows as Markdown.
    pub fn text(&mut self, time: f64, step: u64, tag: &str, text: &str) {
        /// `DT_STRING`.
        const STRING: u64 = 7;
        let tensor = Message::default().number(1, STRING).bytes(2, b"").bytes(8, text.as_bytes());
        let plugin = Message::default().message(1, Message::default().bytes(1, b"text"));
        let value = Message::default().bytes(1, tag.as_bytes()).message(8, tensor).message(9, plugin);
        self.summary(time, step, Message::default().message(1, value));
    }

    /// The file so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What was added since the last call, whole records.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    fn summary(&mut self, time: f64, step: u64, summary: Message) {
        self.record(&Message::default().double(1, time).number(2, step).message(5, summary));
    }

    fn record(&mut self, event: &Message) {
        let length = (event.0.len() as u64).to_le_bytes();
        self.bytes.extend(length);
        self.bytes.extend(masked(&length).to_le_bytes());
        self.bytes.extend(&event.0);
        self.bytes.extend(masked(&event.0).to_le_bytes());
    }
}

/// The checksum of TFRecords: CRC-32C, turned and shifted so that a checksum of checksums is none.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli).
fn crc32c(bytes: &[u8]) -> u32 {
    let byte = |mut sum: u32, byte: &u8| {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ (if sum & 1 == 1 { 0x82f6_3b78 } else { 0 });
        }
        sum
    };
    !bytes.iter().fold(u32::MAX, byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn long_numbers_take_more_bytes() {
        assert_eq!(Message::default().number(2, 300).0, [16, 0xac, 2]);
        assert_eq!(Message::default().bytes(1, &[7; 200]).0[..3], [10, 0xc8, 1]);
    }
}
