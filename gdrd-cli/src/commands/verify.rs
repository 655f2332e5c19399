//! `verify`.

use std::path::Path;
use std::sync::Arc;

use gdrd_core::error::{Error, Result};
use gdrd_core::registry::Registry;
use gdrd_core::report::table::{Align, Table};
use gdrd_core::run::{Finding, RunFolder, Verdict, is_good, verify as look, verify_again};

use super::hub::locked;
use super::{load, place};
use crate::args::PlaceArguments;
use crate::progress::Progress;

pub(crate) fn verify(
    run: &Path,
    again: bool,
    json: bool,
    arguments: &PlaceArguments,
    registry: &Arc<Registry>,
) -> Result<()> {
    let folder = RunFolder::new(run);
    let mut findings = look(&folder, registry)?;
    // A recipe or a lock that cannot be read is among the findings already.
    if again && is_good(&findings) {
        let recipe = load(&folder.recipe(), &[], registry)?;
        let place = place(run, arguments, locked(Some(folder.lock_file().as_path()))?, registry)?;
        let progress = Progress::new();
        let found = verify_again(&recipe, &place, &progress);
        drop(progress);
        findings.extend(found?);
    }
    match json {
        true => {
            let value = serde_json::json!({"run": run, "good": is_good(&findings), "findings": findings});
            let text = serde_json::to_string_pretty(&value).map_err(|e| Error::data(e.to_string()))?;
            say!("{text}");
        }
        false => say!("{}", table(&findings)?.to_markdown().trim_end()),
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    match count(Verdict::Wrong) {
        0 => {
            talk!("{} of {} findings are good, the others cannot be told", count(Verdict::Good), findings.len());
            Ok(())
        }
        wrong => Err(Error::data(format!("`{}`: {wrong} of {} findings are wrong", run.display(), findings.len()))),
    }
}

fn table(findings: &[Finding]) -> Result<Table> {
    let mut table = Table::new([("what", Align::Left), ("", Align::Left), ("found", Align::Left)]);
    for Finding { what, verdict, found } in findings {
        let word = match verdict {
            Verdict::Good => "good",
            Verdict::Wrong => "WRONG",
            Verdict::Unknown => "unknown",
        };
        table.push([what.as_str(), word, found])?;
    }
    Ok(table)
}
