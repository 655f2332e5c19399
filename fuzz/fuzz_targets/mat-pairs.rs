#![no_main]

gdrd_fuzz::fuzz!("mat-pairs");
