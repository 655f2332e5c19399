//! Where a command computes.

use candle_core::Device;
use clap::Args;
use gdrd_core::error::{Context, Error, Result};

#[derive(Args)]
pub(crate) struct PlaceArguments {
    /// Where tensors are: cpu, or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Use no network; what is not on this machine is an error
    #[arg(long)]
    pub(crate) offline: bool,
}

impl PlaceArguments {
    /// The number of the GPU that is asked for; none for the CPU.
    ///
    /// # Errors
    /// If it is neither.
    pub(crate) fn gpu(&self) -> Result<Option<usize>> {
        let number = match self.device.strip_prefix("cuda") {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix(':').and_then(|number| number.parse().ok()),
            None => None,
        };
        match self.device == "cpu" || number.is_some() {
            true => Ok(number),
            false => Err(Error::recipe(format!("`--device {}`: expected `cpu` or `cuda:N`", self.device))),
        }
    }

    pub(crate) fn device(&self) -> Result<Device> {
        let Some(number) = self.gpu()? else { return Ok(Device::Cpu) };
        gdrd_core::nn::kernels::cuda_device(number).at(|| format!("`--device {}`", self.device))
    }
}
