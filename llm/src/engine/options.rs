//! What can be chosen when a model is loaded.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use candle_core::{DType, Device};

use crate::model::ChatOptions;
use crate::{Error, Result};

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first CUDA device if this program and machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    /// `auto`, `cpu`, `cuda` (the first) or `cuda:N`.
    fn from_str(text: &str) -> Result<Self> {
        let number = |n: &str| n.parse().ok().map(Self::Cuda);
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(number),
        }
        .ok_or_else(|| {
            Error::invalid_input(format!(
                "device \"{text}\" is unknown; use auto, cpu or cuda:N"
            ))
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// `Unsupported` for a CUDA device in a program built without, `Unavailable` for one that
    /// cannot be opened.
    pub fn open(self) -> Result<Device> {
        let cuda = cfg!(feature = "cuda");
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if !cuda => Ok(Device::Cpu),
            Self::Auto => Ok(Device::new_cuda(0).unwrap_or(Device::Cpu)),
            Self::Cuda(n) if !cuda => Err(Error::unsupported(format!(
                "device cuda:{n}: this program was built without the feature cuda; use device \
                 cpu, or build with --features cuda"
            ))),
            Self::Cuda(n) => Device::new_cuda(n).map_err(|e| {
                Error::new(
                    crate::ErrorKind::Unavailable,
                    format!("device cuda:{n} cannot be opened ({e}); check nvidia-smi, or use cpu"),
                )
                .with_source(e)
            }),
        }
    }
}

/// `float32`, `bfloat16` or `float16`, as model configurations spell them.
///
/// # Errors
/// Another word.
pub fn parse_dtype(text: &str) -> Result<DType> {
    match text {
        "float32" | "f32" => Ok(DType::F32),
        "bfloat16" | "bf16" => Ok(DType::BF16),
        "float16" | "f16" => Ok(DType::F16),
        other => Err(Error::invalid_input(format!(
            "dtype \"{other}\" is unknown; use float32, bfloat16 or float16"
        ))),
    }
}

/// Choices for [`super::Engine::load`]; `None` takes the default of the device.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Where the model runs.
    pub device: DeviceChoice,
    /// In which type weights and keys are kept; `None` is float32 on the CPU (which has no fast
    /// 16-bit arithmetic here) and bfloat16 on CUDA devices.
    pub dtype: Option<DType>,
    /// A PEFT adapter directory to attach.
    pub adapter: Option<PathBuf>,
    /// What its prompts and replies are like.
    pub chat: ChatOptions,
    /// Branches that reply at the same time; `None` is 32 on the CPU, 256 on CUDA devices.
    pub max_rows: Option<usize>,
    /// Tokens in one step, prompts included; bounds how long replies wait for prompts. `None` is
    /// 512 on the CPU, 4096 on CUDA devices.
    pub max_step_tokens: Option<usize>,
    /// Tokens whose keys and values are kept or reserved at once; `None` is what fits 2 GiB on
    /// the CPU, 16 GiB on CUDA devices.
    pub max_cached_tokens: Option<usize>,
    /// Branches that wait inside the engine; callers beyond wait outside. `None` is 1024.
    pub queue_capacity: Option<usize>,
}

/// Validated limits of an engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_rows: usize,
    pub(crate) max_step_tokens: usize,
    pub(crate) max_cached_tokens: usize,
    pub(crate) queue_capacity: usize,
}

impl EngineOptions {
    pub(crate) fn limits(&self, device: &Device, bytes_per_token: usize) -> Result<Limits> {
        let cpu = device.is_cpu();
        let cache_bytes: usize = if cpu { 2 << 30 } else { 16 << 30 };
        let limits = Limits {
            max_rows: self.max_rows.unwrap_or(if cpu { 32 } else { 256 }),
            max_step_tokens: self.max_step_tokens.unwrap_or(if cpu { 512 } else { 4096 }),
            max_cached_tokens: self
                .max_cached_tokens
                .unwrap_or(cache_bytes / bytes_per_token.max(1)),
            queue_capacity: self.queue_capacity.unwrap_or(1024),
        };
        for (name, value) in [
            ("max_rows", limits.max_rows),
            ("max_cached_tokens", limits.max_cached_tokens),
            ("queue_capacity", limits.queue_capacity),
        ] {
            if value == 0 {
                return Err(Error::invalid_input(format!(
                    "{name} is 0; it must be at least 1"
                )));
            }
        }
        if self.chat.stop.iter().any(String::is_empty) {
            return Err(Error::invalid_input("a stop text is empty; leave it out"));
        }
        if limits.max_step_tokens <= limits.max_rows {
            return Err(Error::invalid_input(format!(
                "max_step_tokens is {}, max_rows {}: a step must have room for a prompt beside all \
                 replies; raise max_step_tokens above max_rows",
                limits.max_step_tokens, limits.max_rows
            )));
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_parse_and_print() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        for text in ["gpu", "cuda:", "cuda:x", "CPU"] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert!(error.message.contains("auto, cpu or cuda:N"), "{error}");
        }
        assert!(
            parse_dtype("int8")
                .unwrap_err()
                .message
                .contains("bfloat16")
        );
    }

    #[test]
    fn limits_are_checked() {
        let options = EngineOptions {
            max_rows: Some(0),
            ..Default::default()
        };
        assert!(
            options
                .limits(&Device::Cpu, 8)
                .unwrap_err()
                .message
                .contains("max_rows")
        );
        let options = EngineOptions {
            max_step_tokens: Some(32),
            ..Default::default()
        };
        assert!(
            options
                .limits(&Device::Cpu, 8)
                .unwrap_err()
                .message
                .contains("max_step_tokens")
        );
        assert!(EngineOptions::default().limits(&Device::Cpu, 8).is_ok());
    }
}
