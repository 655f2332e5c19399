//! The smallest program that embeds one face with fastembed: `fastembed MODEL.onnx SIZE`, the runtime at ORT_DYLIB_PATH.

use std::time::Instant;

use fastembed::{ImageEmbedding, ImageInitOptionsUserDefined, UserDefinedImageEmbeddingModel};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let path = std::env::args().nth(1).ok_or("expected a model")?;
    let size: usize = std::env::args().nth(2).ok_or("expected its input's pixels")?.parse()?;
    let preprocessor = format!(
        r#"{{"do_resize":true,"size":{{"height":{size},"width":{size}}},"do_rescale":true,"rescale_factor":0.00392156862745098,"do_normalize":false}}"#
    );
    let model = UserDefinedImageEmbeddingModel::new(std::fs::read(path)?, preprocessor.into_bytes());
    let mut model = ImageEmbedding::try_new_from_user_defined(model, ImageInitOptionsUserDefined::default())?;
    let opened = start.elapsed();
    let face = image::RgbImage::from_pixel(112, 112, image::Rgb([127; 3]));
    let values = model.embed_images(vec![face.into()])?.remove(0);
    println!("{} values, first {:.4}", values.len(), values[0]);
    println!("open {:.3} ms, first embedding after {:.3} ms", 1e3 * opened.as_secs_f64(), 1e3 * start.elapsed().as_secs_f64());
    Ok(())
}
