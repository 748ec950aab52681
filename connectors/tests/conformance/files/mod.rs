//! CSV, Parquet and JSON on local disk, S3 (moto) and Azure (Azurite).

mod parquet;
pub(crate) mod place;
mod read;
mod store;
mod write;
