//! `report`.

use std::path::{Path, PathBuf};

use gdrd_core::error::Result;
use gdrd_core::files::write_atomically;
use gdrd_core::report::{RunView, html_page, latex_tables, markdown_tables};
use gdrd_core::run::{RunFolder, claim_report, runs_of};

/// What is made of the runs.
pub(crate) struct Wanted {
    pub(crate) runs: Vec<PathBuf>,
    pub(crate) out: Option<PathBuf>,
    pub(crate) latex: bool,
    pub(crate) markdown: bool,
    pub(crate) tensorboard: Option<PathBuf>,
}

pub(crate) fn report(wanted: &Wanted) -> Result<()> {
    if let Some(folder) = &wanted.tensorboard {
        for (at, run) in wanted.runs.iter().enumerate() {
            let name = run.file_name().map_or("run".into(), |name| name.to_string_lossy().into_owned());
            // Two runs of one name have a folder each.
            let before = wanted.runs[..at].iter().filter(|other| other.file_name() == run.file_name()).count();
            let name = if before > 0 { format!("{name}-{}", before + 1) } else { name };
            say!("{}", RunFolder::new(run).write_events(&folder.join(name))?.display());
        }
        if wanted.out.is_none() && !wanted.latex && !wanted.markdown {
            return Ok(());
        }
    }
    let views = runs_of(&wanted.runs)?.iter().map(RunFolder::view).collect::<Result<Vec<RunView>>>()?;
    let out = wanted.out.as_deref().unwrap_or(Path::new("runs/report"));
    let mut files = vec![("report.html", html_page(&views)?)];
    if wanted.markdown {
        files.push(("tables.md", markdown_tables(&views)?));
    }
    if wanted.latex {
        files.push(("tables.tex", latex_tables(&views)?));
    }
    claim_report(out, &files.iter().map(|(name, _)| *name).collect::<Vec<_>>())?;
    for (name, text) in files {
        let path = out.join(name);
        write_atomically(&path, text.as_bytes())?;
        say!("{}", path.display());
    }
    Ok(())
}
