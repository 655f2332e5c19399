//! `hub push`: a finished run as a model repository of the Hub.

use gdrd_core::error::{Context, Error, ErrorKind, Result};
use gdrd_core::files::write_atomically;
use gdrd_core::nn::OnnxInput;
use gdrd_core::registry::Registry;
use gdrd_core::run::{Finding, Lock, RunFolder, Verdict, claim_repository, runs_of, verify};
use gdrd_core::student::StudentHeader;
use gdrd_teachers::hub::{Hub, Push, Settings};

use super::card::{Card, Origin, lineage};
use crate::args::PushArguments;
use crate::commands::open_student;
use crate::progress::Progress;

pub(super) fn push(wanted: &PushArguments, registry: &Registry) -> Result<()> {
    let run = &wanted.run;
    runs_of(std::slice::from_ref(run))?;
    let folder = RunFolder::new(run);
    let wrong = |finding: &Finding| finding.verdict == Verdict::Wrong;
    if let Some(Finding { what, found, .. }) = verify(&folder, registry)?.into_iter().find(wrong) {
        let run = run.display();
        return Err(Error::data(format!(
            "`{run}` is not what its run has written: {what}: {found}; see `gdrd verify {run}`"
        )));
    }
    let read = |path: &std::path::Path| gdrd_core::files::read(path).map_err(|e| Error::io(path, e));
    let student = read(&folder.student())?;
    let place = || format!("`{}`", folder.student().display());
    let (header, _) = StudentHeader::from_bytes(&student).at(place)?;
    let lock = Lock::read_file(&folder.lock_file())?;
    let onnx = match open_student(&folder.student(), registry)?.to_onnx(OnnxInput::Bytes) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::Stopped => return Err(error),
        Err(error) => {
            talk!("note: no student.onnx: {error}");
            None
        }
    };
    let view = folder.view()?;
    let name = wanted.to.as_deref().and_then(|to| to.split('/').next_back()).unwrap_or(&view.name);
    let card = Card { name, licence: &wanted.licence, run: &view, header: &header, lock: &lock, onnx: onnx.is_some() };
    let mut files = vec![("README.md".to_string(), card.text()?.into_bytes()), ("student.safetensors".into(), student)];
    files.extend(onnx.map(|bytes| ("student.onnx".into(), bytes)));
    files.push(("recipe.resolved.toml".into(), read(&folder.recipe())?));
    files.push(("lock.json".into(), read(&folder.lock_file())?));
    announce(wanted, &files, &header);
    if let Some(out) = &wanted.out {
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        claim_repository(out, &names)?;
        for (name, bytes) in &files {
            write_atomically(&out.join(name), bytes)?;
            say!("{}", out.join(name).display());
        }
    }
    let Some(to) = wanted.to.as_deref().filter(|_| !wanted.dry_run) else { return Ok(()) };
    let message = wanted.message.clone().unwrap_or_else(|| format!("{} (gdrd {})", view.name, lock.gdrd));
    let push = Push { repository: to, public: wanted.public, message: &message, files: &files };
    let pushed = Hub::new(Settings::from_env()?).push(&push, &Progress::new())?;
    say!("{} at commit {}, {}", pushed.url, pushed.commit, if pushed.private { "private" } else { "public" });
    Ok(())
}

/// Says, before anything is sent, what it is and who may have a word in it.
fn announce(wanted: &PushArguments, files: &[(String, Vec<u8>)], header: &StudentHeader) {
    let who = if wanted.public { "everybody may read it" } else { "private" };
    let to =
        wanted.to.as_ref().map_or("a model repository".to_string(), |to| format!("the model repository {to}, {who}"));
    talk!("for {to}:");
    for (name, bytes) in files {
        talk!("  {name}, {} bytes", bytes.len());
    }
    talk!("recipe.resolved.toml and lock.json name paths of the machine that trained; none of the files holds a face");
    talk!("what the student comes from, and under which licence:");
    for Origin { part, licence, .. } in lineage(header) {
        talk!("  {part}: {}", licence.unwrap_or("not stated, so that nothing is allowed until its owner says so"));
    }
    talk!("a licence of a dataset or a teacher may forbid that a student of it is published or used: read them first");
}
