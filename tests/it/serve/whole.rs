//! The page and what it asks for, the description of the service, its counters, and a change of student.

use std::io::Write;

use gdrd_tests::service::{Server, face};
use gdrd_tests::{Bench, Said};
use serde_json::{Value, json};

use super::abuse::{connect, rest};
use super::here::{ROOT, begun, program, started};
use super::requests::add;
use crate::gdrd;

fn text(client: &gdrd_tests::service::Client, path: &str) -> String {
    let (status, bytes) = client.send("GET", path, None).expect("an answer");
    assert_eq!(status, 200, "{path}");
    String::from_utf8(bytes).expect("text")
}

#[test]
fn the_page_stands_alone() {
    let (_bench, server, _) = begun(&[]);
    let nobody = server.client("");
    let (page, style, script) = (text(&nobody, "/"), text(&nobody, "/page.css"), text(&nobody, "/page.js"));
    for (name, part) in [("page", &page), ("style", &style), ("script", &script)] {
        // The one address is the name of SVG.
        let known = part.replace("http://www.w3.org/2000/svg", "");
        assert!(!known.contains("http://") && !known.contains("https://") && !known.contains("//cdn"), "{name}");
    }
    assert!(
        !page.contains("onclick") && !page.contains("style=") && !page.contains("<script>"),
        "the policy forbids it"
    );
    assert!(!script.contains("innerHTML") && !script.contains("eval("), "names are text");
    for id in page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
    }
    for id in script.split("$(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(page.contains(&format!(" id=\"{id}\"")) || ["handle", "knob"].contains(&id), "{id}");
    }
    for id in page.split(" for=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(page.contains(&format!(" id=\"{id}\"")), "{id}");
    }
}

#[test]
fn every_described_address_is_there_and_needs_a_key_if_it_says_so() {
    let (_bench, server, client) = begun(&[]);
    let nobody = server.client("");
    let document: Value = serde_json::from_str(&text(&nobody, "/openapi.json")).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, about) in methods.as_object().expect("methods") {
            let path = path
                .replace("{key}", &client.key)
                .replace("{image_id}", "00000000-0000-4000-8000-000000000000")
                .replace("{subject}", "Ann");
            let open = about["security"] == json!([]);
            let (status, bytes) = nobody.send(&method.to_uppercase(), &path, None).expect("an answer");
            assert_eq!(
                status == 400 && gdrd_tests::kills::has_text(&bytes, b"API key"),
                !open,
                "{method} {path}: {status}"
            );
            let (status, bytes) = client.send(&method.to_uppercase(), &path, None).expect("an answer");
            let said = String::from_utf8_lossy(&bytes);
            assert!(status != 405 && !said.contains("Nothing is at this address"), "{method} {path}: {status} {said}");
        }
    }
}

#[test]
fn counters_say_what_was_done_and_not_to_whom() {
    let (_bench, server, client) = begun(&[]);
    add(&client, "Ann", 1);
    client.json("GET", "/api/v1/recognition/faces/Ann");
    client.send("GET", "/Ann", None).expect("an answer");
    // Any word is a method, and needs no key.
    let mut stream = connect(&server);
    stream.write_all(b"BREW /page.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    assert!(rest(&stream).starts_with("HTTP/1.1 405"));
    let counters = text(&client, "/metrics");
    assert!(counters.contains("method=\"other\"") && !counters.contains("BREW"), "{counters}");
    for line in [
        "gdrd_requests_total{method=\"POST\",path=\"/api/v1/recognition/faces\",status=\"201\"} 1",
        "gdrd_requests_total{method=\"GET\",path=\"other\",status=\"404\"} 1",
        "gdrd_faces_embedded_total 1",
        "gdrd_subjects 1",
        "gdrd_examples 1",
        "gdrd_requests_working 0",
    ] {
        assert!(counters.contains(line), "{line}\n{counters}");
    }
    assert!(
        counters.ends_with("# EOF\n") && !counters.contains("Ann") && !counters.contains(&client.key),
        "{counters}"
    );
}

/// A student whose file has thresholds, trained in a moment.
fn calibrated(bench: &Bench) -> String {
    bench.write("town.toml", crate::people::TOWN);
    Said::by(gdrd(bench).args(["train", "town.toml", "--run-dir", "town"])).with_code(0);
    bench.file("town/student.safetensors").to_string_lossy().into_owned()
}

fn serve(bench: &Bench, student: &str, more: &[&str]) -> Result<Server, String> {
    Server::start(program(), bench.path(), &[&["people.db", "--student", student], more].concat())
}

#[test]
fn a_threshold_along_the_measured_errors_decides_who_is_named() {
    let bench = Bench::empty();
    let student = calibrated(&bench);
    let server = serve(&bench, &student, &[]).unwrap_or_else(|said| panic!("{said}"));
    let client = server.client(server.key.as_deref().expect("a key"));
    add(&client, "Ann", 1);
    let about = client.json("GET", "/api/gdrd/about").1;
    assert_eq!((&about["threshold"], &about["student"]["kind"]), (&Value::Null, &json!("resnet-trunk")));
    assert!(about["calibration"]["sizes"][0]["thresholds"][0]["similarity"].is_f64(), "{about}");
    assert!(about["quality_false_match_rate"].is_f64(), "{about}");
    let recognised = |number: u32| {
        client.form(&format!("{ROOT}/recognize"), &[("file", &face(number))]).1["result"][0]["subjects"].clone()
    };
    assert_eq!(recognised(400)[0]["subject"], "Ann", "the nearest, however far, as CompreFace answers");
    let far = recognised(400)[0]["similarity"].as_f64().expect("a number");
    let set = |value: Value| client.with_json("PUT", "/api/gdrd/threshold", &json!({ "similarity": value }));
    let between = (far + 1.0) / 2.0;
    assert_eq!(set(json!(between)), (200, json!({ "similarity": between })));
    assert_eq!((recognised(400), &recognised(1)[0]["subject"]), (json!([]), &json!("Ann")));
    let seen = client.form("/api/gdrd/look", &[("file", &face(400))]).1;
    let found = &seen["faces"][0];
    assert!(
        found["small"].as_str().is_some_and(|text| text.starts_with("data:image/png;base64,")) && found["pixels"] == 24
    );
    assert!(
        found["quality"].is_f64()
            && found["matches"][0]["subject"] == "Ann"
            && found["matches"][0]["image_id"].is_string()
    );
    // Whom a face shows that is smaller than all that were measured, or of one colour, nobody knows.
    set(json!(0.0));
    assert_eq!(recognised(1)[0]["subject"], "Ann");
    for (side, step) in [(1, 0), (7, 9), (24, 0)] {
        let pixel = |x: u32, y: u32| image::Rgb([(90 + step * ((5 * x + 3 * y) % 16)) as u8; 3]);
        let mut png = Vec::new();
        image::RgbImage::from_fn(side, side, pixel)
            .write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png)
            .expect("PNG");
        let found = client.form(&format!("{ROOT}/recognize"), &[("file", &png)]).1["result"][0].clone();
        assert_eq!((&found["subjects"], &found["quality"]), (&json!([]), &json!(0.0)), "{side} pixels: {found}");
        let (status, said) = client.form(&format!("{ROOT}/faces?subject=Nobody"), &[("file", &png)]);
        assert_eq!((status, &said["code"]), (400, &json!(26)), "{side} pixels: {said}");
        assert_eq!(client.form("/api/gdrd/look", &[("file", &png)]).1["faces"][0]["unknowable"], true);
    }
    set(json!(between));
    for wrong in [json!(1.5), json!(-0.1), json!("a")] {
        assert_eq!(set(wrong).1["code"], 26);
    }
    drop(server);
    // It is kept, until it is taken back.
    let server = serve(&bench, &student, &[]).unwrap_or_else(|said| panic!("{said}"));
    let client = server.client(&client.key);
    assert_eq!(client.json("GET", "/api/gdrd/about").1["threshold"], between);
    client.with_json("PUT", "/api/gdrd/threshold", &json!({ "similarity": null }));
    assert_eq!(client.json("GET", "/api/gdrd/about").1["threshold"], Value::Null);
}

#[test]
fn another_student_embeds_again_or_is_refused() {
    let (bench, server, client) = begun(&[]);
    add(&client, "Ann", 1);
    add(&client, "Bob", 40);
    assert_eq!(client.with_json("PUT", "/api/gdrd/threshold", &json!({ "similarity": 0.5 })).0, 200);
    drop(server);
    let other = calibrated(&bench);
    let said = serve(&bench, &other, &[]).err().expect("it is refused");
    assert!(said.contains("people.db`: its embeddings are of another student") && said.contains("--reembed"), "{said}");
    let server = serve(&bench, &other, &["--reembed"]).unwrap_or_else(|said| panic!("{said}"));
    let found = server.client(&client.key).form(&format!("{ROOT}/recognize"), &[("file", &face(1))]).1;
    assert_eq!(found["result"][0]["subjects"][0], json!({ "subject": "Ann", "similarity": 1.0 }));
    let about = server.client(&client.key).json("GET", "/api/gdrd/about").1;
    assert_eq!(about["threshold"], Value::Null, "it was chosen for the other student");
    drop(server);
    let said = started(&bench, &[]).err().expect("the first student is another now");
    assert!(said.contains("another student"), "{said}");

    let (second, server, client) = begun(&["--no-images"]);
    let id = add(&client, "Ann", 1);
    assert_eq!(client.send("GET", &format!("{ROOT}/faces/{id}/img"), None), Ok((200, Vec::new())));
    drop(server);
    let said = serve(&second, &other, &["--reembed"]).err().expect("it is refused");
    assert!(said.contains("1 of 1 faces were kept without an image"), "{said}");
}

#[test]
fn a_detector_needs_the_feature() {
    if cfg!(feature = "align") {
        return;
    }
    let bench = Bench::empty();
    let said = started(&bench, &["--detector", "yunet.onnx"]).err().expect("it is refused");
    assert!(said.contains("`cargo build --release --features align` builds one with them"), "{said}");
}
