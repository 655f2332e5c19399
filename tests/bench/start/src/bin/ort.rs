//! The smallest program that embeds one face with ort: `ort MODEL.onnx`, the runtime at ORT_DYLIB_PATH.

use std::time::Instant;

use ort::session::Session;
use ort::value::Tensor;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let path = std::env::args().nth(1).ok_or("expected a model")?;
    let size: usize = std::env::args().nth(2).ok_or("expected its input's pixels")?.parse()?;
    let environment = ort::init().build()?;
    let mut session = Session::builder(&environment)?.commit_from_file(path)?;
    let opened = start.elapsed();
    let face = Tensor::from_array(([1usize, 3, size, size], vec![127.0f32 / 255.0; 3 * size * size]))?;
    let outputs = session.run(ort::inputs!["faces" => face])?;
    let (_, values) = outputs["embedding"].try_extract_tensor::<f32>()?;
    println!("{} values, first {:.4}", values.len(), values[0]);
    println!("open {:.3} ms, first embedding after {:.3} ms", 1e3 * opened.as_secs_f64(), 1e3 * start.elapsed().as_secs_f64());
    Ok(())
}
