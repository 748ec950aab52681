//! CSV, Parquet and JSON on local disk, S3 (moto) and Azure (Azurite).

mod copy;
mod folders;
mod json;
mod parquet;
pub(crate) mod place;
mod places;
mod read;
mod store;
mod web;
mod write;
