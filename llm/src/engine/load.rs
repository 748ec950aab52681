//! How an engine starts: files are read, the adapter attached, the thread started.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, DeviceLocation};
use tokio::sync::mpsc;

use super::options::EngineOptions;
use super::scheduler::Scheduler;
use super::{Engine, Inner, ModelInfo};
use crate::model::{
    Decoder, DecoderConfig, KvBlock, ModelSource, Prompter, attach_adapter, check_adapter,
    open_weights,
};
use crate::{Error, Result};

/// The name of a profile that comes with a model.
const PROFILE_OVERLAY: &str = "casebook-profile.toml";

/// Refuses what [`load`] would refuse, as far as it shows without reading weights.
pub(crate) fn check(source: &ModelSource, options: &EngineOptions) -> Result<()> {
    options.device.open()?;
    let files = source.open()?;
    let config = DecoderConfig::parse(&files.name, &files.require("config.json")?)?;
    open_weights(&files, &config)?;
    Prompter::load_with(&files, &config, &options.chat)?;
    match &options.adapter {
        Some(directory) => check_adapter(directory),
        None => Ok(()),
    }
}

pub(crate) fn load(source: &ModelSource, options: EngineOptions) -> Result<Engine> {
    let device = options.device.open()?;
    let dtype = options.dtype.unwrap_or(if device.is_cpu() {
        DType::F32
    } else {
        DType::BF16
    });
    let files = source.open()?;
    let mut decoder = Decoder::read(&files, &device, dtype)?;
    let prompter = Prompter::load_with(&files, &decoder.config, &options.chat)?;
    let prompter = Arc::new(prompter);
    let (mut name, mut digest) = (files.name.clone(), files.digest()?);
    if let Some(directory) = &options.adapter {
        attach_adapter(&mut decoder, directory)?;
        let adapter = ModelSource::Directory(directory.clone()).open()?;
        digest = blake3::hash(format!("{digest}+{}", adapter.digest()?).as_bytes()).to_hex()[..32]
            .to_string();
        name = format!("{name}+{}", adapter.name);
    }
    let digest = options.chat.identity(&digest);
    let limits = options.limits(&device, KvBlock::bytes_per_token(&decoder.config, dtype))?;
    let overlay = match files.read(PROFILE_OVERLAY)? {
        None => None,
        Some(content) => Some(String::from_utf8(content.to_vec()).map_err(|e| {
            Error::corrupt(format!("{} is not UTF-8", files.describe(PROFILE_OVERLAY)))
                .with_source(e)
        })?),
    };
    let parameters = decoder.parameters()?;
    let info = ModelInfo {
        name,
        digest,
        context_tokens: decoder.config.context_tokens(),
        parameters,
        weight_bytes: decoder.weight_bytes(),
        dtype: dtype_name(dtype),
        device: device_name(&device),
        max_cached_tokens: limits.max_cached_tokens,
        profile_overlay: overlay,
    };

    let (sender, receiver) = mpsc::channel(limits.queue_capacity);
    let cached = Arc::new(AtomicUsize::new(0));
    let failure = Arc::new(Mutex::new(None));
    let scheduler = Scheduler::new(
        decoder,
        Arc::clone(&prompter),
        limits,
        receiver,
        Arc::clone(&cached),
    );
    let noted = Arc::clone(&failure);
    let run = move || {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scheduler.run()));
        if let Err(panic) = ended {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            *noted.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(text.unwrap_or_else(|| "a panic without a message".to_string()));
        }
    };
    let thread = std::thread::Builder::new()
        .name("casebook-engine".to_string())
        .spawn(run)
        .map_err(|e| Error::io("the engine thread could not be started", e))?;
    let thread = Mutex::new(Some(thread));
    let inner = Inner {
        info,
        prompter,
        sender: Some(sender),
        thread,
        failure,
        cached,
    };
    Ok(Engine {
        inner: Arc::new(inner),
    })
}

fn dtype_name(dtype: DType) -> String {
    match dtype {
        DType::F32 => "float32".to_string(),
        DType::BF16 => "bfloat16".to_string(),
        DType::F16 => "float16".to_string(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn device_name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_string(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
