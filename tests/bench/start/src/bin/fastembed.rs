//! The smallest program that embeds one face with fastembed: `fastembed MODEL.onnx SIZE`, the runtime at ORT_DYLIB_PATH.

use std::time::Instant;

use fastembed::{ImageEmbedding, ImageInitOptionsUserDefined, UserDefinedImageEmbeddingModel};

/// The face comes as the network takes it: nothing is to be done.
const PREPROCESSOR: &str = r#"{ "image_processor_type": "CLIPImageProcessor", "do_resize": false, "do_center_crop": false,
    "do_rescale": false, "do_normalize": false }"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let path = std::env::args().nth(1).ok_or("expected a model")?;
    let size: usize = std::env::args().nth(2).ok_or("expected its input's pixels")?.parse()?;
    let model = UserDefinedImageEmbeddingModel::new(std::fs::read(path)?, PREPROCESSOR.into());
    let mut model = ImageEmbedding::try_new_from_user_defined(model, ImageInitOptionsUserDefined::new())?;
    let opened = start.elapsed();
    let face = ndarray::Array3::from_elem((3, size, size), 127.0f32 / 255.0);
    let found = model.embed_preprocessed(vec![face])?;
    println!("{} values, first {:.4}", found[0].len(), found[0][0]);
    println!("open {:.3} ms, first embedding after {:.3} ms", 1e3 * opened.as_secs_f64(), 1e3 * start.elapsed().as_secs_f64());
    Ok(())
}
