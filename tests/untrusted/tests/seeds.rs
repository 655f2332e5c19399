//! Writes the seeds of the corpus anew, with the writers that gdrd itself and its formats have.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};
use gdrd_core::context::{Bare, BuildContext};
use gdrd_core::data::{DatasetConfig, PackAs, SyntheticFaces, pack};
use gdrd_core::nn::Weights;
use gdrd_core::nn::weights::Init;
use gdrd_core::student::{STUDENT_FORMAT, StudentHeader, StudentKinds, build};
use gdrd_core::trainer::{Checkpoint, Position};
use image::{DynamicImage, ImageFormat};
use serde_json::json;

mod hostile;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn seed(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder = root().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join(format!("seed-{name}")), bytes).expect("a seed");
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
#[ignore = "writes files of the repository"]
fn write_the_seeds() {
    images();
    weights();
    students();
    kept();
    texts();
    hub();
    readers();
}

fn images() {
    let pixel = |x: u32, y: u32| image::Rgba([(x * 37) as u8, (y * 91) as u8, (x * y) as u8, 255 - 9 * x as u8]);
    let picture = DynamicImage::from(image::RgbaImage::from_fn(9, 7, pixel));
    let encoded = |image: &DynamicImage, format| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).expect("encoded");
        bytes.into_inner()
    };
    let rgb = DynamicImage::from(picture.to_rgb8());
    for (name, format) in [("bmp", ImageFormat::Bmp), ("gif", ImageFormat::Gif), ("jpeg", ImageFormat::Jpeg)] {
        seed("image", name, encoded(&rgb, format));
    }
    seed("image", "webp", encoded(&picture, ImageFormat::WebP));
    seed("image", "png-rgba", encoded(&picture, ImageFormat::Png));
    seed("image", "png-16", encoded(&DynamicImage::from(picture.to_rgb16()), ImageFormat::Png));
    seed("image", "png-grey", encoded(&DynamicImage::from(picture.to_luma_alpha8()), ImageFormat::Png));
    seed("image", "jpeg-grey", encoded(&DynamicImage::from(picture.to_luma8()), ImageFormat::Jpeg));
    let jpeg = encoded(&rgb, ImageFormat::Jpeg);
    let exif = b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    seed("image", "jpeg-turned", [&jpeg[..2], exif, &jpeg[2..]].concat());
}

fn readers() {
    for (target, file, name) in [
        ("bin", "lfw_py3_0.bin", "python3-0"),
        ("bin", "lfw_py2_2.bin", "python2-2"),
        ("bin", "lfw_py3_4.bin", "python3-4"),
        ("mat", "gallery.mat", "plain"),
        ("mat", "gallery_packed.mat", "packed"),
        ("mat", "probes.mat", "rows"),
        ("record", "train.rec", "parts"),
        ("index", "train.idx", "parts"),
        ("mat-pairs", "positive_pairs_names.mat", "pairs"),
        ("parquet", "faces.parquet", "datasets"),
        ("parquet", "version_2.parquet", "version-2"),
        ("parquet", "delta.parquet", "delta"),
        ("parquet", "delta_length.parquet", "delta-length"),
        ("tar", "long_pax.tar", "pax"),
        ("tar", "long_gnu.tar", "gnu"),
    ] {
        seed(target, name, read(&format!("tests/golden/readers/{file}")));
    }
    for (name, bytes) in hostile::files() {
        seed("parquet", name, bytes);
    }
    seed("listed", "boxes", "path,person,x,y,width,height,light\na.png,Ann,1,2,4,4,dim\n\"b, c.png\",,,,,,\n");
    let faces = SyntheticFaces {
        identities: 2,
        images_per_identity: 2,
        first_identity: 0,
        size: 16,
        fixed_appearance: true,
        ..SyntheticFaces::default()
    };
    let faces = faces.build(&BuildContext::new(&Bare(Device::Cpu))).expect("faces");
    let small = |index: usize| faces.face(index);
    let raw = PackAs::Faces { face: &small, low_resolution: true };
    for (name, form) in [("images", PackAs::Images), ("pixels", raw)] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("faces.pack");
        pack(&*faces, &form, &path, false, &Default::default(), &mut |_, _| Ok(())).expect("written");
        seed("packed", name, std::fs::read(&path).expect("a file"));
    }
}

fn weights() {
    for name in ["command.pth", "legacy.pth", "network.pth", "types.pth", "beside.pth"] {
        let bytes = read(&format!("tests/golden/pytorch_files/{name}"));
        seed("archive", name, &bytes);
        let Ok(mut archive) = zip::ZipArchive::new(Cursor::new(bytes)) else { continue };
        let names: Vec<String> =
            archive.file_names().filter_map(|name| name.ok().map(|name| name.into_owned())).collect();
        let inner = names.iter().find(|name| name.ends_with("data.pkl")).expect("a pickle");
        let mut pickle = Vec::new();
        archive.by_name(inner).and_then(|mut file| Ok(file.read_to_end(&mut pickle)?)).expect("a pickle");
        seed("pickle", name, pickle);
    }
    let all = ["F16", "BF16", "F32", "F64", "I64"].map(|dtype| {
        let dtype: DType = match dtype {
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            "F64" => DType::F64,
            "I64" => DType::I64,
            _ => DType::F32,
        };
        (format!("model.{dtype:?}"), Tensor::ones((2, 3), dtype, &Device::Cpu).expect("ones"))
    });
    seed("safetensors", "types", safetensors::serialize(all, None).expect("bytes"));
    let two = [("module.a", 2usize), ("net.a", 3)].map(|(name, size)| {
        let tensor = Tensor::zeros(size, DType::F32, &Device::Cpu).expect("zeros");
        (name, tensor)
    });
    seed("safetensors", "names", safetensors::serialize(two, None).expect("bytes"));
    for (name, descr, fortran, shape, size) in [
        ("float32", "<f4", "False", "(2, 3)", 24),
        ("float64-big", ">f8", "False", "(3,)", 24),
        ("float16-fortran", "<f2", "True", "(2, 3)", 12),
    ] {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}").into_bytes();
        header.resize((header.len() + 11).next_multiple_of(64) - 10, b' ');
        header.push(b'\n');
        header.truncate((header.len() + 10) / 64 * 64 - 10);
        let length = (header.len() as u16).to_le_bytes();
        seed("npy", name, [b"\x93NUMPY\x01\0", &length[..], &header, &vec![1; size]].concat());
    }
}

fn students() {
    let mut registry = gdrd_core::registry::Registry::with_core().expect("core's kinds");
    gdrd_student::register(&mut registry).expect("students");
    let small = json!({"channels": [2, 4], "blocks": [1, 1], "strides": [1, 2], "embedding": 3});
    let unet = json!({
        "network": {"image_size": 16, "model_channels": 4, "channel_mult": [1], "num_res_blocks": 1, "norm_groups": 2},
    });
    for (kind, options) in [("resnet-trunk", small), ("diffusion-unet", unet)] {
        let config = registry.config(kind, &options).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let draw = Rc::new(|_: &str, count: usize, init: Init| match init {
            Init::Constant(value) => vec![value; count],
            _ => (0..count).map(|at| (at % 5) as f32 / 8.0 - 0.25).collect(),
        });
        let made = Weights::create(&Device::Cpu, draw, |weights| build(&*config, 16, weights, &Bare(Device::Cpu)));
        let (student, variables) = made.unwrap_or_else(|error| panic!("{kind}: {error}"));
        let header = StudentHeader {
            format: STUDENT_FORMAT,
            kind: kind.into(),
            options,
            card: student.card().clone(),
            prepare: Default::default(),
            recipe: "0123456789abcdef".into(),
            teachers: Default::default(),
            licences: Default::default(),
            facts: Default::default(),
        };
        let tensors = variables.tensors();
        if kind == "resnet-trunk" {
            seed("student", "sealed", header.to_bytes(&tensors).expect("bytes"));
        }
        // Without its checksum, as older files are: a mutated one is read further.
        let text = serde_json::to_string(&StudentHeader { format: 1, ..header }).expect("JSON");
        let metadata = std::collections::HashMap::from([("gdrd".to_string(), text)]);
        seed("student", kind, safetensors::serialize(tensors.iter(), Some(metadata)).expect("bytes"));
    }
}

fn kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let tensor = |value: f32| Tensor::new(&[value, 2.0], &Device::Cpu).expect("a tensor");
    let checkpoint = Checkpoint {
        position: Position { total_steps: 3, stage: 0, stage_steps: 3, recipe: "0123456789abcdef".into(), log: None },
        variables: [("student.w".to_string(), tensor(1.0))].into(),
        optimizer: [("velocity.student.w".to_string(), tensor(0.5))].into(),
    };
    let at = checkpoint.write(folder.path(), 1).expect("written");
    let part = |name: &str| std::fs::read(at.join(name)).expect("a file");
    seed("checkpoint", "whole", [part("position.json"), vec![0], part("state.safetensors")].concat());
    for (name, dtype, shape, size) in
        [("maps", "F16", "[2,3]", 12), ("single", "F32", "[2,1]", 8), ("scalar", "F16", "[]", 2)]
    {
        let header = format!(r#"{{"features":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{size}]}}}}"#);
        let length = (header.len() as u64).to_le_bytes();
        seed("features", name, [&length[..], header.as_bytes(), &vec![60; size]].concat());
    }
    let figure = |name: &str, value: serde_json::Value| {
        json!({"name": name, "value": value, "unit": "percent", "higher-is-better": true, "higher_is_better": true,
            "count": 4, "error": 1.5, "in_table": true})
    };
    let mut headline = figure("accuracy", 75.0.into());
    headline.as_object_mut().expect("a table").remove("higher-is-better");
    let outcome = json!({"what": "pairs", "headline": "accuracy", "figures": [headline],
        "curves": [{"name": "ROC", "x": "far", "y": "tar", "log_x": true, "points": [[0.5, 1.0]]}],
        "matrices": [{"name": "ranks", "columns": ["group", "rank 1"], "rows": [["all", [0.5]]]}], "items": "1011"});
    seed("records", "outcome", outcome.to_string());
    seed(
        "records",
        "lock",
        json!({"gdrd": "0.1.0", "candle": "0.11.1", "program": "ab", "recipe": "cd",
        "teachers": {"t": "ef"}, "files": {"hf://a/b/c": {"commit": "0a", "sha256": "0b", "size": 3}},
        "data": {"train": {"fingerprint": "x", "faces": 3, "identities": 2}}, "machine": {"os": "linux"}})
        .to_string(),
    );
    seed(
        "records",
        "mark",
        json!({"gdrd_run": 1, "finished": true, "process": 7, "machine": "m", "since": 0,
        "charts": ["roc"]})
        .to_string(),
    );
}

fn texts() {
    for name in ["tiny", "discriminative", "generative"] {
        seed("recipe", name, read(&format!("tests/src/recipes/{name}.toml")));
    }
    for name in ["quickstart", "paper"] {
        seed("recipe", name, read(&format!("assets/recipes/{name}.toml")));
    }
    let set = b"\0stage.generative.loss.regression.weight=2\0data.train={ kind = \"joined\", parts = [\"a\"] }";
    seed("recipe", "sets", [&read("tests/src/recipes/generative.toml"), &set[..]].concat());
    seed("recipe", "extends", "format = 1\nextends = \"again.toml\"\n[student]\nkind = \"resnet-trunk\"\n");
    seed("pairs", "two-folds", "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t1\nBob\t1\t2\nBob\t2\tAnn\t2\n");
    seed("pairs", "one-fold", "\u{feff}1\r\nAnn 1 2\r\nAnn 1 Bob 3\r\n");
}

fn hub() {
    let commit = "0123456789012345678901234567890123456789";
    let head = |etag: &str, size: usize| {
        format!("HTTP/1.1 200 OK\r\nx-repo-commit: {commit}\r\netag: \"{etag}\"\r\ncontent-length: {size}\r\n\r\n")
    };
    seed("hub", "whole", format!("{}~~~~HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", head("tag", 3)));
    seed("hub", "wrong", format!("{}~~~~HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", head(commit, 3)));
    seed("hub", "redirect", format!("HTTP/1.1 302 Found\r\nlocation: /other\r\n\r\n~~~~{}", head("tag", 9)));
    seed(
        "hub",
        "chunked",
        format!("{}~~~~HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", head("tag", 3)),
    );
    seed(
        "hub",
        "no-file",
        "HTTP/1.1 404 Not Found\r\nx-error-code: EntryNotFound\r\n\r\n~~~~HTTP/1.1 200 OK\r\n\
        content-type: application/json\r\ncontent-length: 40\r\n\r\n{\"siblings\": [{\"rfilename\": \"file.bim\"}]}",
    );
    seed("hub", "limit", "HTTP/1.1 429 Too Many\r\nretry-after: 1\r\nratelimit: \"resolvers\";r=0;t=55\r\n\r\n");
}
