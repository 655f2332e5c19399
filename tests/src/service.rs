//! `gdrd serve` as a process, and a client of it on loopback.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

/// What separates the parts of a form.
const EDGE: &str = "gdrd-test-edge";

/// A running server, which is killed when it is dropped.
pub struct Server {
    /// The process.
    pub child: Child,
    /// Such as `http://127.0.0.1:40123`.
    pub address: String,
    /// The key that it printed, if it made a database.
    pub key: Option<String>,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts `program serve ARGUMENTS` on a free port and waits until it listens; else what it said on standard error.
    ///
    /// # Errors
    /// If it ends before it listens.
    pub fn start(program: &Path, folder: &Path, arguments: &[&str]) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.current_dir(folder).arg("serve").args(arguments).args(["--listen", "127.0.0.1:0"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("standard output"));
        let mut server = Self { child, address: String::new(), key: None, output };
        loop {
            let mut line = String::new();
            let ended = server.output.read_line(&mut line).expect("a line") == 0;
            let mut talk = server.child.stderr.take().expect("standard error");
            if ended {
                let mut said = String::new();
                talk.read_to_string(&mut said).expect("text");
                return Err(said);
            }
            if let Some((_, shown)) = line.trim().split_once("not shown again: ") {
                server.key = Some(shown.to_string());
            }
            if let Some(address) = line.trim().strip_prefix("listening on ") {
                server.address = address.to_string();
                // What it says from here on must not fill the pipe.
                std::thread::spawn(move || std::io::copy(&mut talk, &mut std::io::sink()));
                return Ok(server);
            }
            server.child.stderr = Some(talk);
        }
    }

    /// A client with the key of the database.
    pub fn client(&self, key: &str) -> Client {
        Client { agent: agent(), address: self.address.clone(), key: key.to_string() }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        self.child.wait().expect("it ends");
    }

    /// Waits until it ends by itself; its exit code, and what else it said on standard output.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it ends").code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60))).build().into()
}

/// A client with a key.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    /// The server's.
    pub address: String,
    /// Sent with every request.
    pub key: String,
}

/// An answer: status and body.
pub type Answer = Result<(u16, Vec<u8>), String>;

impl Client {
    /// Sends a request; `body` with its type. Errors are those of the connection.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn send(&self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Answer {
        let url = format!("{}{path}", self.address);
        let request = ureq::http::Request::builder().method(method).uri(&url).header("x-api-key", &self.key);
        let sent = match body {
            Some((kind, bytes)) => {
                let request = request.header("content-type", kind).body(bytes.to_vec()).expect("a request");
                self.agent.run(request)
            }
            None => self.agent.run(request.body(()).expect("a request")),
        };
        let mut answer = sent.map_err(|e| e.to_string())?;
        let bytes = answer.body_mut().with_config().limit(64 << 20).read_to_vec().map_err(|e| e.to_string())?;
        Ok((answer.status().as_u16(), bytes))
    }

    /// A request without a body, whose answer is JSON.
    #[track_caller]
    pub fn json(&self, method: &str, path: &str) -> (u16, Value) {
        read(self.send(method, path, None))
    }

    /// A request with a body of JSON.
    #[track_caller]
    pub fn with_json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        read(self.send(method, path, Some(("application/json", body.to_string().as_bytes()))))
    }

    /// A form with images.
    #[track_caller]
    pub fn form(&self, path: &str, images: &[(&str, &[u8])]) -> (u16, Value) {
        let (kind, body) = form(images);
        read(self.send("POST", path, Some((&kind, &body))))
    }
}

/// The type and the bytes of a form.
pub fn form(images: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, bytes) in images {
        let head =
            format!("--{EDGE}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"face.png\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{EDGE}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={EDGE}"), body)
}

#[track_caller]
fn read(answer: Answer) -> (u16, Value) {
    let (status, bytes) = answer.expect("an answer");
    let text = String::from_utf8_lossy(&bytes);
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{status}: {error}: {text}")))
}

/// A face that is told from others by its number: waves and noise, a PNG of 24x24 pixels.
pub fn face(number: u32) -> Vec<u8> {
    let at = number as f32;
    let pixel = |x: u32, y: u32| {
        let wave = (x as f32 * (0.2 + 0.137 * at) + at).sin() + (y as f32 * (0.9 - 0.071 * at)).cos();
        let noise = (x * 73 + y * 1511 + number * 7919).wrapping_mul(2_654_435_761) >> 29;
        let value = (120.0 + 55.0 * wave) as u8 + noise as u8;
        image::Rgb([value, value / 2 + (number % 90) as u8, 255 - value])
    };
    let mut bytes = Vec::new();
    let image = image::RgbImage::from_fn(24, 24, pixel);
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).expect("PNG");
    bytes
}
