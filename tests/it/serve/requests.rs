//! CompreFace's interface: what its clients ask for, what they are answered, and the codes of what is refused.

use gdrd_tests::Said;
use gdrd_tests::service::{Client, face};
use serde_json::{Value, json};

use super::here::{ROOT, begun, started};
use crate::gdrd;

/// Adds a face; its number.
pub(super) fn add(client: &Client, subject: &str, number: u32) -> String {
    let (status, said) = client.form(&format!("{ROOT}/faces?subject={subject}"), &[("file", &face(number))]);
    assert_eq!((status, &said["subject"]), (201, &json!(subject)), "{said}");
    said["image_id"].as_str().expect("a number").to_string()
}

fn subjects(client: &Client) -> Value {
    client.json("GET", &format!("{ROOT}/subjects")).1["subjects"].clone()
}

#[track_caller]
fn refused(answer: (u16, Value), status: u16, code: u16) {
    let (found, said) = answer;
    assert_eq!((found, &said["code"]), (status, &json!(code)), "{said}");
    assert!(said["message"].as_str().is_some_and(|text| !text.is_empty()), "{said}");
}

#[test]
fn subjects_are_added_listed_renamed_merged_and_deleted() {
    let (_bench, _server, client) = begun(&[]);
    let all = format!("{ROOT}/subjects");
    let added = client.with_json("POST", &all, &json!({ "subject": "Ann" }));
    assert_eq!(added, (201, json!({ "subject": "Ann" })));
    refused(client.with_json("POST", &all, &json!({ "subject": "ann" })), 400, 43);
    client.with_json("POST", &all, &json!({ "subject": "Bob Öl" }));
    // CompreFace's own description asks with a slash behind.
    assert_eq!(client.json("GET", &format!("{all}/")), (200, json!({ "subjects": ["Ann", "Bob Öl"] })));
    let renamed = client.with_json("PUT", &format!("{all}/bob%20%C3%96l"), &json!({ "subject": "Bob" }));
    assert_eq!(renamed, (200, json!({ "updated": true })));
    assert_eq!(
        client.with_json("PUT", &format!("{all}/Bob"), &json!({ "subject": "Bob" })).1,
        json!({ "updated": false })
    );
    assert_eq!(
        client.with_json("PUT", &format!("{all}/Bob"), &json!({ "subject": "BOB" })).1,
        json!({ "updated": true })
    );
    add(&client, "Ann", 1);
    add(&client, "BOB", 2);
    // Who gets another's name becomes one with them.
    assert_eq!(
        client.with_json("PUT", &format!("{all}/BOB"), &json!({ "subject": "Ann" })).1,
        json!({ "updated": true })
    );
    assert_eq!(subjects(&client), json!(["Ann"]));
    let found = client.form(&format!("{ROOT}/recognize"), &[("file", &face(2))]).1;
    assert_eq!(found["result"][0]["subjects"][0], json!({ "subject": "Ann", "similarity": 1.0 }));
    assert_eq!(client.json("GET", &format!("{ROOT}/faces?subject=ANN")).1["total_elements"], 2);
    refused(client.with_json("PUT", &format!("{all}/Nobody"), &json!({ "subject": "Somebody" })), 404, 42);
    refused(client.json("DELETE", &format!("{all}/Nobody")), 404, 42);
    assert_eq!(client.json("DELETE", &format!("{all}/ann")), (200, json!({ "subject": "Ann" })));
    client.with_json("POST", &all, &json!({ "subject": "Cleo" }));
    assert_eq!(client.json("DELETE", &all), (200, json!({ "deleted": 1 })));
    assert_eq!(subjects(&client), json!([]));
    for (name, code) in [("", 26), ("   ", 26), (&*"x".repeat(51), 26), ("a/b", 36), ("a;b", 36), ("a\nb", 36)] {
        refused(client.with_json("POST", &all, &json!({ "subject": name })), 400, code);
    }
    refused(client.with_json("POST", &all, &json!({ "name": "Ann" })), 400, 5);
    refused(client.with_json("POST", &all, &json!([])), 400, 5);
}

#[test]
fn faces_are_added_listed_shown_and_deleted() {
    let (_bench, _server, client) = begun(&[]);
    let faces = format!("{ROOT}/faces");
    let ids: Vec<String> = (0..5).map(|number| add(&client, if number < 3 { "Ann" } else { "Bob" }, number)).collect();
    let page = client.json("GET", &format!("{faces}?page=1&size=2")).1;
    assert_eq!(
        page,
        json!({
            "faces": [{ "image_id": ids[2], "subject": "Ann" }, { "image_id": ids[3], "subject": "Bob" }],
            "page_number": 1, "page_size": 2, "total_pages": 3, "total_elements": 5,
        })
    );
    let usual = client.json("GET", &faces).1;
    assert_eq!((&usual["page_size"], usual["faces"].as_array().map(Vec::len)), (&json!(20), Some(5)));
    assert_eq!(client.json("GET", &format!("{faces}?subject=Nobody")).1["total_elements"], 0);
    // By Base64 as well, as browsers write it too.
    let base64 = |bytes: &[u8]| {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digit = |chunk: &[u8], at: usize| {
            let bits = chunk.iter().chain([&0, &0]).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
            if at <= chunk.len() { DIGITS[(bits >> (18 - 6 * at) & 63) as usize] as char } else { '=' }
        };
        bytes.chunks(3).flat_map(|chunk| (0..4).map(move |at| digit(chunk, at))).collect::<String>()
    };
    let path = format!("{faces}?subject=Cleo&det_prob_threshold=0.8");
    for front in ["", "data:image/png;base64,"] {
        let (status, said) =
            client.with_json("POST", &path, &json!({ "file": format!("{front}{}", base64(&face(9))) }));
        assert_eq!(status, 201, "{said}");
    }
    let image = client.send("GET", &format!("{faces}/{}/img", ids[1]), None).expect("an answer");
    assert_eq!(image, (200, face(1)));
    let open =
        client.send("GET", &format!("/api/v1/static/{}/images/{}", client.key, ids[1]), None).expect("an answer");
    assert_eq!(open, (200, face(1)));
    let small = client.send("GET", &format!("/api/gdrd/faces/{}/small", ids[1]), None).expect("an answer").1;
    let small = image::load_from_memory(&small).expect("a PNG");
    assert_eq!((small.width(), small.height()), (16, 16));
    let none = "00000000-0000-4000-8000-000000000000";
    assert_eq!(client.send("GET", &format!("{faces}/{none}/img"), None), Ok((200, Vec::new())));

    assert_eq!(
        client.json("DELETE", &format!("{faces}/{}", ids[0])),
        (200, json!({ "image_id": ids[0], "subject": "Ann" }))
    );
    refused(client.json("DELETE", &format!("{faces}/{}", ids[0])), 404, 44);
    refused(client.json("DELETE", &format!("{faces}/1")), 400, 36);
    let two = client.with_json("POST", &format!("{faces}/delete"), &json!([ids[1], none, ids[3], ids[1]])).1;
    assert_eq!(two, json!([{ "image_id": ids[1], "subject": "Ann" }, { "image_id": ids[3], "subject": "Bob" }]));
    // Who has lost a face stays, who has lost all of them too.
    assert_eq!(client.json("DELETE", &format!("{faces}/{}", ids[2])).0, 200);
    assert_eq!(subjects(&client), json!(["Ann", "Bob", "Cleo"]));
    let nearest = client.form(&format!("{ROOT}/recognize?prediction_count=9"), &[("file", &face(0))]).1;
    let named: Vec<&Value> =
        nearest["result"][0]["subjects"].as_array().expect("subjects").iter().map(|one| &one["subject"]).collect();
    assert!(named.len() == 2 && !named.contains(&&json!("Ann")), "{nearest}");
    assert_eq!(client.json("DELETE", &format!("{faces}?subject=cleo")), (200, json!({ "deleted": 2 })));
    assert_eq!(client.json("DELETE", &format!("{faces}?subject=Nobody")).1, json!({ "deleted": 0 }));
    assert_eq!(client.json("DELETE", &faces).1, json!({ "deleted": 1 }));
    assert_eq!(subjects(&client), json!([]));
}

#[test]
fn faces_are_recognised_and_verified_by_image_and_by_embedding() {
    let (_bench, _server, client) = begun(&[]);
    let id = add(&client, "Ann", 1);
    add(&client, "Ann", 2);
    add(&client, "Bob", 40);
    let all = "limit=0&det_prob_threshold=0.8&prediction_count=2&face_plugins=calculator,landmarks,age&status=True&detect_faces=false";
    let (status, said) = client.form(&format!("{ROOT}/recognize?&{all}"), &[("file", &face(1))]);
    let found = &said["result"][0];
    assert_eq!((status, said["result"].as_array().map(Vec::len)), (200, Some(1)), "{said}");
    assert_eq!(found["box"], json!({ "probability": 1.0, "x_max": 24, "y_max": 24, "x_min": 0, "y_min": 0 }));
    assert_eq!(found["subjects"][0], json!({ "subject": "Ann", "similarity": 1.0 }));
    assert_eq!(
        (&found["subjects"][1]["subject"], found["subjects"].as_array().map(Vec::len)),
        (&json!("Bob"), Some(2))
    );
    let between = found["subjects"][1]["similarity"].as_f64().expect("a number");
    assert!((0.0..0.999).contains(&between), "{found}");
    assert!(found["execution_time"]["calculator"].is_f64() && found.get("landmarks").is_none());
    assert!(said["plugins_versions"]["calculator"].as_str().is_some_and(|text| text.starts_with("gdrd resnet-trunk ")));
    let embedding = found["embedding"].clone();
    assert_eq!(embedding.as_array().map(Vec::len), Some(12));
    let plain = client.form(&format!("{ROOT}/recognize"), &[("file", &face(1))]).1;
    let mut keys: Vec<&String> = plain["result"][0].as_object().expect("a face").keys().collect();
    keys.sort();
    assert!(keys == ["box", "subjects"] && plain.get("plugins_versions").is_none(), "{plain}");
    assert_eq!(plain["result"][0]["subjects"].as_array().map(Vec::len), Some(1));

    let verified = client.form(&format!("{ROOT}/faces/{id}/verify"), &[("file", &face(1))]).1;
    assert_eq!((&verified["result"][0]["subject"], &verified["result"][0]["similarity"]), (&json!("Ann"), &json!(1.0)));
    let two = [("source_image", &face(1)[..]), ("target_image", &face(40)[..])];
    let verified = client.form("/api/v1/verification/verify?status=true&face_plugins=calculator", &two).1;
    let one = &verified["result"][0];
    assert_eq!(one["source_image_face"]["embedding"], embedding);
    assert!((one["face_matches"][0]["similarity"].as_f64().expect("a number") - between).abs() < 1e-4, "{one}");
    assert!(one["plugins_versions"]["detector"].is_string());

    let named = client
        .with_json(
            "POST",
            &format!("{ROOT}/embeddings/recognize?prediction_count=-1"),
            &json!({ "embeddings": [embedding] }),
        )
        .1;
    assert_eq!(named["result"][0]["similarities"][0], json!({ "subject": "Ann", "similarity": 1.0 }));
    assert_eq!(
        (&named["result"][0]["embedding"], named["result"][0]["similarities"].as_array().map(Vec::len)),
        (&embedding, Some(2))
    );
    let turned: Vec<f64> =
        embedding.as_array().expect("numbers").iter().map(|one| -one.as_f64().expect("a number")).collect();
    let both = json!({ "embeddings": [turned, embedding] });
    let compared = client.with_json("POST", &format!("{ROOT}/embeddings/faces/{id}/verify"), &both).1;
    let similarities = [&compared["result"][0]["similarity"], &compared["result"][1]["similarity"]];
    assert_eq!(similarities, [&json!(1.0), &json!(0.0)], "the most similar first, and none is negative");
    let compared = client
        .with_json(
            "POST",
            "/api/v1/verification/embeddings/verify",
            &json!({ "source": embedding, "targets": [turned] }),
        )
        .1;
    assert_eq!(compared["result"][0]["similarity"], 0.0);
    let detected = client.form("/api/v1/detection/detect?face_plugins=calculator", &[("file", &face(1))]).1;
    assert_eq!(detected["result"][0]["embedding"], embedding);
}

#[test]
fn what_is_wrong_has_compreface_s_codes() {
    let (_bench, server, client) = begun(&[]);
    let image = face(1);
    let recognise =
        |query: &str, name: &str, bytes: &[u8]| client.form(&format!("{ROOT}/recognize{query}"), &[(name, bytes)]);
    refused(recognise("", "picture", &image), 400, 34);
    refused(recognise("", "file", b""), 400, 5);
    refused(recognise("", "file", b"no image at all"), 400, 21);
    refused(recognise("", "file", &image[..image.len() - 20]), 400, 21);
    for (query, code) in [
        ("?limit=-1", 26),
        ("?limit=many", 36),
        ("?prediction_count=0", 26),
        ("?det_prob_threshold=2", 26),
        ("?det_prob_threshold=NaN", 26),
        ("?status=perhaps", 36),
    ] {
        refused(recognise(query, "file", &image), 400, code);
    }
    refused(client.form(&format!("{ROOT}/faces"), &[("file", &image)]), 400, 33);
    refused(client.form(&format!("{ROOT}/faces?subject=a%2Fb"), &[("file", &image)]), 400, 36);
    let missing = format!("{ROOT}/faces/00000000-0000-4000-8000-000000000000/verify");
    refused(client.form(&missing, &[("file", &image)]), 404, 44);
    let path = format!("{ROOT}/recognize");
    refused(client.with_json("POST", &path, &json!({ "file": "%%%" })), 400, 21);
    refused(client.with_json("POST", &path, &json!({ "file": 7 })), 400, 21);
    refused(client.with_json("POST", &path, &json!({})), 400, 34);
    let send = |kind: &str, body: &[u8]| {
        let (status, bytes) = client.send("POST", &path, Some((kind, body))).expect("an answer");
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    };
    refused(send("application/json", b"{\"file\": "), 400, 36);
    refused(send("text/plain", b"hallo"), 400, 36);
    refused(send("multipart/form-data", b"hallo"), 400, 36);
    refused(send("multipart/form-data; boundary=x", b"--x\r\nContent-Disp"), 400, 36);
    let embeddings = |body: Value| client.with_json("POST", &format!("{ROOT}/embeddings/recognize"), &body);
    refused(embeddings(json!({ "embeddings": [] })), 400, 37);
    refused(embeddings(json!({ "embeddings": [[1.0, 2.0]] })), 400, 36);
    refused(embeddings(json!({ "embeddings": [vec!["a"; 12]] })), 400, 36);
    refused(embeddings(json!({ "embeddings": [vec![1e300; 12]] })), 400, 36);
    refused(embeddings(json!({ "embeddings": [vec![0.0; 12]] })), 400, 36);
    refused(client.json("GET", "/api/v1/recognition/nothing"), 404, 0);
    refused(client.json("PATCH", &path), 405, 0);
    for (key, status, code) in [("", 400, 26), ("1234", 400, 26), ("00000000-0000-4000-8000-000000000000", 404, 10)] {
        refused(server.client(key).json("GET", &format!("{ROOT}/subjects")), status, code);
        refused(server.client(key).form(&path, &[("file", &image)]), status, code);
    }
    refused(client.json("GET", "/api/v1/static/00000000-0000-4000-8000-000000000000/images/1"), 404, 10);
}

#[test]
fn each_key_has_its_own_people_and_can_be_revoked() {
    let (bench, mut server, mine) = begun(&[]);
    add(&mine, "Ann", 1);
    server.kill();
    let key = |arguments: &[&str], code: i32| {
        Said::by(gdrd(&bench).args(["serve", "people.db"]).args(arguments)).with_code(code)
    };
    let second = key(&["--new-key", "second"], 0).stdout.trim().to_string();
    let third = key(&["--new-key", "second"], 0).stdout.trim().to_string();
    let server = started(&bench, &[]).unwrap_or_else(|said| panic!("{said}"));
    let (mine, yours, also) = (server.client(&mine.key.to_uppercase()), server.client(&second), server.client(&third));
    assert_eq!((subjects(&mine), subjects(&yours)), (json!(["Ann"]), json!([])));
    let id = add(&yours, "Ann", 2);
    assert_eq!(subjects(&also), json!(["Ann"]), "two keys of one collection");
    assert_eq!(mine.send("GET", &format!("{ROOT}/faces/{id}/img"), None), Ok((200, Vec::new())));
    refused(mine.json("DELETE", &format!("{ROOT}/faces/{id}")), 404, 44);
    assert_eq!(yours.json("DELETE", &format!("{ROOT}/subjects")).1, json!({ "deleted": 1 }));
    assert_eq!(subjects(&mine), json!(["Ann"]));
    drop(server);
    key(&["--revoke-keys", "nothing"], 1);
    let said = key(&["--revoke-keys", "second"], 0);
    assert!(said.stdout.contains("2 keys of `second` are invalid now"), "{said:#?}");
    let server = started(&bench, &[]).unwrap_or_else(|said| panic!("{said}"));
    refused(server.client(&second).json("GET", &format!("{ROOT}/subjects")), 404, 10);
    assert_eq!(subjects(&server.client(&mine.key)), json!(["Ann"]));
    let bytes = std::fs::read(bench.file("people.db")).expect("a database");
    let text = mine.key.to_lowercase();
    assert!(!gdrd_tests::kills::has_text(&bytes, text.as_bytes()), "keys are kept as their hashes");
}
