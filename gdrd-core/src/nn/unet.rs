//! U-Net of guided-diffusion.
