//! Limits: of size, number and time; TLS; and the end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use gdrd_tests::service::{Server, face, form};
use serde_json::json;

use super::here::{ROOT, begun, started};
use super::requests::add;
use crate::kill;

/// Asks a server to stop; what it said until it ended.
pub(super) fn stop(server: &mut Server) -> String {
    kill(server.child.id(), "TERM");
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said}");
    said
}

pub(super) fn connect(server: &Server) -> TcpStream {
    let at = server.address.strip_prefix("http://").expect("an address");
    let stream = TcpStream::connect(at).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// What comes until the server hangs up.
pub(super) fn rest(mut stream: &TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let (_bench, _server, client) = begun(&["--max-body", "1", "--max-pixels", "1"]);
    let large = vec![7; 3 << 20];
    let path = format!("{ROOT}/recognize");
    let (status, said) = client.form(&path, &[("file", &large)]);
    assert!(
        status == 413 && said["message"].as_str().is_some_and(|text| text.contains("more than 1 MB")),
        "{status} {said}"
    );
    // An image that says it has 60,000 x 60,000 pixels, in 77 bytes.
    let mut bomb = face(1);
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let start = Instant::now();
    let (status, said) = client.form(&path, &[("file", &bomb)]);
    assert!(status == 400 && said["code"] == 21 && start.elapsed() < Duration::from_secs(2), "{said}");
    let mut wide = Vec::new();
    image::GrayImage::new(1001, 1000)
        .write_to(&mut std::io::Cursor::new(&mut wide), image::ImageFormat::Png)
        .expect("PNG");
    let said = client.form(&path, &[("file", &wide)]).1;
    assert!(
        said["message"].as_str().is_some_and(|text| text.contains("1001x1000 pixels") && text.contains("1 megapixels")),
        "{said}"
    );
    for side in [1, 2, 7] {
        let mut tiny = Vec::new();
        image::RgbImage::from_pixel(side, side, image::Rgb([9, 80, 7]))
            .write_to(&mut std::io::Cursor::new(&mut tiny), image::ImageFormat::Png)
            .expect("PNG");
        let (status, said) = client.form(&path, &[("file", &tiny)]);
        assert_eq!((status, &said["result"][0]["box"]["x_max"]), (200, &json!(side)), "{said}");
    }
    let many = json!({ "embeddings": vec![vec![1.0; 12]; 1001] });
    assert_eq!(client.with_json("POST", &format!("{ROOT}/embeddings/recognize"), &many).1["code"], 26);
}

#[test]
fn slow_and_broken_clients_are_left_and_others_served() {
    let (_bench, server, client) = begun(&["--timeout", "1", "--max-connections", "12"]);
    add(&client, "Ann", 1);
    let key = &client.key;
    let heads = [
        // Nothing at all, half a head, and heads whose bodies do not come.
        String::new(),
        "POST /api/v1/recognition/recognize HT".into(),
        format!("POST {ROOT}/recognize HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\nContent-Length: 1000\r\n\r\nabc"),
        format!(
            "POST {ROOT}/recognize HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
        ),
    ];
    let start = Instant::now();
    let streams: Vec<TcpStream> = heads
        .iter()
        .map(|head| {
            let mut stream = connect(&server);
            stream.write_all(head.as_bytes()).expect("sent");
            stream
        })
        .collect();
    assert_eq!(client.json("GET", &format!("{ROOT}/subjects")).0, 200, "others are served meanwhile");
    let said: Vec<String> = streams.iter().map(rest).collect();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(said[2].starts_with("HTTP/1.1 408") && said[3].starts_with("HTTP/1.1 408"), "{said:?}");
    // Who sends a byte now and then is no quicker.
    let mut drip = connect(&server);
    drip.write_all(heads[2].as_bytes()).expect("sent");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) && drip.write_all(b"x").is_ok() {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    for bytes in
        ["\0\0\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000))]
    {
        let mut stream = connect(&server);
        // It may hang up before it has read all of it.
        let _ = stream.write_all(bytes.as_bytes());
        let said = rest(&stream);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    // Connections that are cut in the midst of an upload leave no room taken.
    let (kind, body) = form(&[("file", &face(1))]);
    for _ in 0..40 {
        let mut stream = connect(&server);
        let head = format!(
            "POST {ROOT}/recognize HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..body.len() / 2])).expect("sent");
    }
    assert_eq!(client.form(&format!("{ROOT}/recognize"), &[("file", &face(1))]).0, 200);
}

#[test]
fn who_comes_while_there_is_no_room_is_told_to_come_again() {
    let (_bench, server, client) = begun(&["--max-requests", "1", "--timeout", "5"]);
    let head =
        format!("POST {ROOT}/recognize HTTP/1.1\r\nHost: x\r\nx-api-key: {}\r\nContent-Length: 9\r\n\r\n", client.key);
    let start = Instant::now();
    let (mut stream, busy) = loop {
        // A request that comes while another is answered is turned away itself: then it is made again.
        let mut stream = connect(&server);
        stream.write_all(head.as_bytes()).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
        let (status, said) = client.json("GET", &format!("{ROOT}/subjects"));
        if status == 503 {
            break (stream, said);
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{status} {said}");
    };
    assert!(busy["message"].as_str().is_some_and(|text| text.contains("busy")), "{busy}");
    stream.write_all(b"123456789").expect("sent");
    while client.json("GET", &format!("{ROOT}/subjects")).0 != 200 {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_server_that_is_asked_to_stop_ends_what_it_has_begun() {
    let (bench, mut server, client) = begun(&[]);
    add(&client, "Ann", 1);
    let mut stream = connect(&server);
    let (kind, body) = form(&[("file", &face(2))]);
    let head = format!(
        "POST {ROOT}/faces?subject=Bob HTTP/1.1\r\nHost: x\r\nx-api-key: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        client.key,
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..100])).expect("sent");
    std::thread::sleep(Duration::from_millis(300));
    kill(server.child.id(), "TERM");
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        TcpStream::connect(server.address.strip_prefix("http://").expect("an address")).is_err(),
        "nobody new is let in"
    );
    stream.write_all(&body[100..]).expect("sent");
    let said = rest(&stream);
    assert!(said.starts_with("HTTP/1.1 201"), "{said}");
    assert_eq!(server.end().0, Some(0));
    assert!(!bench.file("people.db-wal").exists(), "the log was brought into the database");
    let mut server = started(&bench, &[]).unwrap_or_else(|said| panic!("{said}"));
    let faces = server.client(&client.key).json("GET", &format!("{ROOT}/faces")).1;
    assert_eq!(faces["total_elements"], 2);
    stop(&mut server);
}

#[test]
fn tls_is_served_by_a_certificate_and_its_key() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).expect("a certificate");
    let bench = gdrd_tests::Bench::empty();
    bench.write("cert.pem", made.cert.pem());
    bench.write("key.pem", made.signing_key.serialize_pem());
    let arguments = ["--tls-certificate", "cert.pem", "--tls-key", "key.pem"];
    let server = started(&bench, &arguments).unwrap_or_else(|said| panic!("{said}"));
    assert!(server.address.starts_with("https://127.0.0.1:"), "{}", server.address);
    let root = ureq::tls::Certificate::from_der(made.cert.der()).to_owned();
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::new_with_certs(&[root])).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
    let key = server.key.clone().expect("a key");
    let mut answer =
        agent.get(format!("{}{ROOT}/subjects", server.address)).header("x-api-key", &key).call().expect("an answer");
    assert_eq!(answer.body_mut().read_to_string().expect("text"), "{\"subjects\":[]}");
    assert!(
        ureq::get(format!("{}{ROOT}/subjects", server.address)).call().is_err(),
        "who does not know the certificate"
    );
    let at = server.address.strip_prefix("https://").expect("an address");
    let mut plain = TcpStream::connect(at).expect("a connection");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    assert!(!rest(&plain).contains("200 OK"));
    drop(server);
    for (certificate, key) in [("key.pem", "key.pem"), ("cert.pem", "cert.pem"), ("none.pem", "key.pem")] {
        let said = started(&bench, &["--tls-certificate", certificate, "--tls-key", key]).err().expect("it is refused");
        assert!(said.contains("PEM"), "{said}");
    }
}
