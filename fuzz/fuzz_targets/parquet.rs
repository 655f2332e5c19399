#![no_main]

gdrd_fuzz::fuzz!("parquet");
