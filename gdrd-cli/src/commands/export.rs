//! `export`, `completions` and `manual`: for other programs.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::files::{check_output, write_atomically};
use gdrd_core::nn::{OPSET, OnnxInput};
use gdrd_core::registry::Registry;

use super::open_student;
use crate::args::{Arguments, ExportArguments, Preprocess};
use crate::output::went_to;

pub(crate) fn onnx(wanted: &ExportArguments, registry: &Registry) -> Result<()> {
    let ExportArguments { student, onnx: out, preprocess } = wanted;
    check_output(out, [student.as_path()])?;
    let encoder = open_student(student, registry)?;
    let input = match preprocess {
        Preprocess::Nodes => OnnxInput::Bytes,
        Preprocess::Metadata => OnnxInput::Floats,
    };
    let bytes = encoder.to_onnx(input).at(|| format!("`{}`", student.display()))?;
    write_atomically(out, &bytes)?;
    let size = encoder.header().card.input_size;
    let takes = match preprocess {
        Preprocess::Nodes => format!("bytes [batch, {size}, {size}, 3], RGB"),
        Preprocess::Metadata => format!("float32 [batch, 3, {size}, {size}], RGB, bytes divided by 255"),
    };
    went_to(out, format_args!("{}: ONNX, opset {OPSET}; `faces` {takes}; `embedding` of unit length", out.display()));
    Ok(())
}

pub(crate) fn completions(shell: Shell) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "gdrd", &mut text);
    say!("{}", String::from_utf8_lossy(&text).trim_end());
}

pub(crate) fn manual(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    clap_mangen::generate_to(Arguments::command(), folder).map_err(|e| Error::io(folder, e))?;
    say!("{}: a page for each command, to be read by `man -l`", folder.display());
    Ok(())
}
