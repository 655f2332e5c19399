//! The networks that students are, each with its options as a recipe and a student file have them.

mod blocks;
mod bounds;
mod diffusion_trunk;
mod diffusion_unet;
mod head;
mod iresnet;
mod mobilefacenet;
mod mobilenet;
mod recogniser;
mod resnet_trunk;
mod super_resolution;

pub use blocks::Downsample;
pub use diffusion_trunk::DiffusionTrunk;
pub use diffusion_unet::DiffusionUnet;
pub use head::{HeadOptions, Pool};
pub use iresnet::{IresnetLayout, IresnetStudent};
pub use mobilefacenet::{MobileFaceNetLayout, MobileFaceNetStudent};
pub use mobilenet::{MobileNet, MobileNetVersion};
pub use recogniser::RecogniserHead;
pub use resnet_trunk::ResnetTrunk;
pub use super_resolution::{RestoredFaceRecogniser, SuperResolution};
