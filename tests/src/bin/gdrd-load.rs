//! `gdrd-load STUDENT FACE [SECONDS] [CONNECTIONS] [PEOPLE]`: requests to `recognize` without a pause, on loopback.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gdrd_tests::Bench;
use gdrd_tests::service::{Server, face, form};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [student, image, ..] = arguments.as_slice() else { panic!("expected STUDENT FACE") };
    let number = |at: usize, other| arguments.get(at).map_or(other, |text: &String| text.parse().expect("a number"));
    let (seconds, connections, people) = (number(2, 60), number(3, 8), number(4, 1000));
    let program = std::env::current_exe().expect("this program").with_file_name("gdrd-under-test");
    let student = Path::new(student).canonicalize().expect("a student").to_string_lossy().into_owned();
    let image = std::fs::read(PathBuf::from(image)).expect("an image");
    let bench = Bench::empty();
    let server = Server::start(&program, bench.path(), &["people.db", "--student", &student]).expect("it starts");
    let client = server.client(server.key.as_deref().expect("a key"));
    let start = Instant::now();
    for person in 0..people {
        let path = format!("/api/v1/recognition/faces?subject=Person%20{person}");
        assert_eq!(client.form(&path, &[("file", &face(person as u32))]).0, 201);
    }
    let enrolled = start.elapsed().as_secs_f64();
    println!(
        "{people} people enrolled one after the other: {:.1} a second, {} MB resident",
        people as f64 / enrolled,
        memory(&server)
    );
    let (kind, body) = form(&[("file", &image)]);
    let head = format!(
        "POST /api/v1/recognition/recognize HTTP/1.1\r\nHost: x\r\nx-api-key: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        client.key,
        body.len()
    );
    let request = [head.as_bytes(), &body].concat();
    let address = server.address.strip_prefix("http://").expect("an address").to_string();
    let (start, end) = (Instant::now(), Duration::from_secs(seconds));
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let asking = || {
            let mut stream = TcpStream::connect(&address).expect("a connection");
            stream.set_nodelay(true).expect("set");
            let (mut took, mut answer) = (Vec::new(), vec![0; 64 << 10]);
            while start.elapsed() < end {
                let begin = Instant::now();
                stream.write_all(&request).expect("sent");
                let count = stream.read(&mut answer).expect("an answer");
                assert!(answer[..count].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..count]));
                took.push(begin.elapsed());
            }
            took
        };
        let all: Vec<_> = (0..connections).map(|_| scope.spawn(asking)).collect();
        for part in 1..=4 {
            std::thread::sleep(end / 4);
            println!("after {} s: {} MB resident", part * seconds / 4, memory(&server));
        }
        all.into_iter().flat_map(|one| one.join().expect("a client")).collect()
    });
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{connections} connections, {seconds} s: {:.0} requests a second; p50 {:.2} ms, p99 {:.2} ms, the slowest {:.2} ms",
        took.len() as f64 / start.elapsed().as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Megabytes that a server has in memory.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) / 1024
}
