//! `serve`: recognition over HTTP, for programs that speak CompreFace's REST interface, and on a page.
//!
//! ```text
//! listen.rs      routes.rs        service.rs     subjects, examples,      look.rs          people.rs     store/
//! a socket ──► an address ──► a key, room ──► recognise, page ──► faces of an image ──► in memory ──► SQLite
//! ```
//!
//! Three kinds of threads: tokio's answer requests and wait, its blocking ones wait for the disk, and the one that started the service
//! (of rayon's pool, as the network is) embeds.

mod body;
mod examples;
mod listen;
mod look;
mod metrics;
mod page;
mod people;
mod recognise;
mod refusal;
mod routes;
mod service;
mod store;
mod subjects;

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use gdrd_core::error::{Context, Error, ErrorKind, Result};
use gdrd_core::registry::Registry;
use gdrd_student::front_end::Detector;
use tokio::sync::Semaphore;

use self::listen::Listening;
use self::look::{Looker, Wanted};
use self::people::People;
use self::service::Service;
use self::store::{Backups, Store};
use crate::args::{Searching, ServeArguments};
use crate::commands::student_for_photographs;
use crate::progress::Progress;

/// The collection of a new database.
const FIRST: &str = "default";
/// The least score that a detector is asked for; requests may ask for more.
const LEAST_SCORE: f32 = 0.3;

pub(crate) fn serve(wanted: &ServeArguments, registry: &Registry) -> Result<()> {
    let backups =
        wanted.backups.as_deref().map(|folder| Backups::new(folder, wanted.backup_keep as usize)).transpose()?;
    let (mut store, recovered) = Store::open(&wanted.database, backups)?;
    if recovered {
        talk!(
            "{}: the server before this one was cut off; what it had acknowledged is there",
            wanted.database.display()
        );
    }
    if let Some(collection) = &wanted.new_key {
        let key = store.new_key(collection)?;
        say!("{key}");
        return Ok(());
    }
    if let Some(collection) = &wanted.revoke_keys {
        let count = store.revoke_keys(collection)?;
        say!("{}: {count} keys of `{collection}` are invalid now", wanted.database.display());
        return Ok(());
    }
    if let Some(folder) = &wanted.forget_backup {
        let count = store.forget_backups(folder)?;
        say!(
            "{}: {count} backups in `{}` are forgotten; should they turn up, people who were deleted since are in them",
            wanted.database.display(),
            folder.display()
        );
        return Ok(());
    }
    let student = wanted.student.as_deref().ok_or_else(|| Error::recipe("expected `--student FILE`"))?;
    let encoder = Arc::new(student_for_photographs(student, registry)?);
    let (detector, detector_name) = detector(wanted)?.unzip();
    let looker = Looker { encoder: encoder.clone(), detector, pixels: wanted.max_pixels * 1_000_000 };
    embeddings_of(&mut store, &looker, wanted)?;
    let tls = match (&wanted.tls_certificate, &wanted.tls_key) {
        (Some(certificate), Some(key)) => Some(listen::tls(certificate, key)?),
        _ => None,
    };
    let address = |e: std::io::Error| {
        let advice = match e.kind() {
            std::io::ErrorKind::AddrInUse => "; another program listens there: end it, or name another port",
            _ => "",
        };
        Error::new(ErrorKind::Io, format!("`--listen {}`: {e}{advice}", wanted.listen))
    };
    let listener = TcpListener::bind(wanted.listen).map_err(address)?;
    listener.set_nonblocking(true).map_err(address)?;
    let at = listener.local_addr().map_err(address)?;
    if store.collections()?.is_empty() {
        let key = store.new_key(FIRST)?;
        say!("key of the collection `{FIRST}`, which is not shown again: {key}");
    }
    let (tasks, queue) = channel();
    let time = Duration::from_secs(wanted.timeout);
    let service = Arc::new(Service {
        keys: store.keys()?,
        people: People::load(store, encoder.clone())?,
        encoder,
        tasks,
        bounds: body::Bounds { bytes: (wanted.max_body as usize) << 20, time },
        room: Semaphore::new(wanted.max_requests as usize),
        keeps_images: !wanted.no_images,
        detector: detector_name,
        score: wanted.finding.searching.score,
        metrics: metrics::Metrics::new(),
    });
    let every = wanted.backups.as_ref().map(|_| Duration::from_secs(3600 * wanted.backup_every));
    say!("listening on {}://{at}", if tls.is_some() { "https" } else { "http" });
    let listening = Listening { listener, tls, connections: wanted.max_connections as usize, time };
    let answering =
        std::thread::Builder::new().name("gdrd-serve".into()).spawn(move || answer(service, listening, every));
    let answering = answering.map_err(|e| Error::io("a thread", e))?;
    looker.run(&queue);
    let done = answering.join().map_err(|_| Error::component("the service failed"))?;
    talk!("stopped");
    done
}

/// Answers requests until the process is asked to stop.
fn answer(service: Arc<Service>, listening: Listening, backups: Option<Duration>) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(64).enable_all().build();
    let runtime = runtime.map_err(|e| Error::io("threads of the service", e))?;
    runtime.block_on(async {
        let stop = stop().map_err(|e| Error::io("the signal to stop", e))?;
        if let Some(every) = backups {
            tokio::spawn(back_up(service.clone(), every));
        }
        listening.run(routes::router(service), stop).await
    })
    // The runtime ends here, and with it whoever could ask the looker for something.
}

/// Resolves when the process is asked to stop: Ctrl-C or SIGTERM.
#[cfg(unix)]
fn stop() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        talk!("stopping after the requests that were begun");
    })
}

#[cfg(not(unix))]
fn stop() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a handler Ctrl-C ends the program as it always does.
        let _ = tokio::signal::ctrl_c().await;
        talk!("stopping after the requests that were begun");
    })
}

/// Makes a backup whenever the newest is old enough.
async fn back_up(service: Arc<Service>, every: Duration) {
    loop {
        let done = service.blocking(move |service| {
            let mut store = service.people.store();
            let age = store.backed_up()?.map(Duration::from_secs);
            Ok(match age.filter(|age| *age < every) {
                Some(age) => every - age,
                None => {
                    if let Some(path) = store.back_up()? {
                        talk!("backup: {}", path.display());
                    }
                    every
                }
            })
        });
        // What went wrong is said where it is refused; the next try may do.
        let wait = match done.await {
            Ok(wait) => wait,
            Err(refusal) => {
                talk!("no backup: {}", refusal.message());
                every.min(Duration::from_secs(600))
            }
        };
        tokio::time::sleep(wait.max(Duration::from_secs(1))).await;
    }
}

/// Sees to it that the embeddings of the database are those of the student.
fn embeddings_of(store: &mut Store, looker: &Looker, wanted: &ServeArguments) -> Result<()> {
    let another = store.is_of_another(&looker.encoder)?;
    let place = || format!("`{}`", wanted.database.display());
    if !another && !wanted.reembed {
        return Ok(());
    }
    if !wanted.reembed {
        return Err(Error::data(
            "its embeddings are of another student, whose vectors say nothing to this one; serve that one, or embed the images of \
             the database again with `--reembed`",
        ))
        .at(place);
    }
    let mut faces = store.faces()?;
    if !another {
        // Those of this student stay as they are, but for what is damaged.
        let damaged: HashSet<i64> = store.damaged(&looker.encoder)?.into_iter().collect();
        faces.retain(|(row, _)| damaged.contains(row));
    }
    if faces.is_empty() {
        return Ok(());
    }
    let without = faces.iter().filter(|(_, has_image)| !has_image).count();
    if without > 0 {
        return Err(Error::data(format!(
            "{without} of {} faces were kept without an image (`--no-images`), and cannot be embedded again",
            faces.len()
        )))
        .at(place);
    }
    talk!("{}: embedding {} faces again", wanted.database.display(), faces.len());
    let mut all = Vec::with_capacity(faces.len());
    for (row, _) in faces {
        let image = store.image_of(row)?.unwrap_or_default();
        let wanted = Wanted { image: image.into(), detect: true, score: LEAST_SCORE, limit: 1 };
        all.push((row, looker.one(wanted).at(place)?));
    }
    match another {
        true => store.set_student(&looker.encoder, &all),
        false => store.mend(&all),
    }
}

/// The detector, and its name.
fn detector(wanted: &ServeArguments) -> Result<Option<(Box<dyn Detector>, String)>> {
    let Some(name) = &wanted.finding.detector else { return Ok(None) };
    let searching = searching(&wanted.finding.searching)?;
    let (detector, path) = crate::photograph::detector(name, &searching, &Progress::new())?;
    Ok(Some((detector, path.file_stem().unwrap_or_default().to_string_lossy().into_owned())))
}

/// How the detector looks, which is asked for all faces that a request may ask for: `--score` is what requests ask for that say nothing.
fn searching(wanted: &Searching) -> Result<Searching> {
    if !(LEAST_SCORE..1.0).contains(&wanted.score) {
        return Err(Error::recipe(format!("`--score`: expected {LEAST_SCORE} to below 1, found {}", wanted.score)));
    }
    Ok(Searching { score: LEAST_SCORE, ..wanted.clone() })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn parsed(more: &[&str]) -> ServeArguments {
        let begin = ["gdrd", "serve", "people.db", "--student", "s.safetensors", "--detector", "yunet.onnx"];
        let parsed = Arguments::try_parse_from(begin.iter().chain(more)).unwrap_or_else(|error| panic!("{error}"));
        match parsed.command {
            Command::Serve(wanted) => *wanted,
            _ => panic!("another command"),
        }
    }

    #[test]
    fn the_detector_is_asked_as_the_options_say() {
        let wanted = parsed(&["--longest-side", "1920", "--enlarge", "2", "--score", "0.5"]);
        let found = searching(&wanted.finding.searching).expect("options");
        assert_eq!((found.longest_side, found.enlarge, found.score), (1920, 2.0, LEAST_SCORE));
        let said = searching(&parsed(&["--score", "1.5"]).finding.searching).err().expect("refused").to_string();
        assert!(said.contains("`--score`: expected 0.3 to below 1, found 1.5"), "{said}");
    }
}
