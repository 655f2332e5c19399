//! Pretrained face networks as teachers of gdrd.

pub mod mobilefacenet;
