//! Proof of the backward pass: finite differences, packing, and whole runs on a small network.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::adapter::{initialise, linear_mut};
use super::backward::Gradients;
use super::example::{Example, PromptForm, Tokens};
use super::micro_batch::{MicroBatch, micro_step};
use super::run::{EXAMPLES, RUN, RunDirectory, RunMode};
use super::settings::LoraSettings;
use super::trainer::{TrainObserver, test_sites, train};
use super::{StepRecord, log, peft};
use crate::engine::DeviceChoice;
use crate::model::{Decoder, ModelSource};

fn tiny() -> ModelSource {
    ModelSource::Embedded {
        name: casebook_tiny::NAME,
        files: casebook_tiny::FILES,
    }
}

/// Two layers of the bundled model, with pairs whose B is not zero.
fn small() -> (Decoder, LoraSettings) {
    let mut decoder = Decoder::load(&tiny(), &Device::Cpu, DType::F32).unwrap();
    decoder.layers.truncate(2);
    let settings = LoraSettings {
        rank: 3,
        alpha: 6.0,
        ..LoraSettings::default()
    };
    let settings = with_pairs(&mut decoder, settings);
    (decoder, settings)
}

/// Gives the decoder pairs whose B is not zero.
fn with_pairs(decoder: &mut Decoder, settings: LoraSettings) -> LoraSettings {
    let sites = test_sites(decoder, &settings);
    initialise(decoder, &sites, &settings).unwrap();
    for site in sites {
        let pair = linear_mut(decoder, site).unwrap().lora.as_mut().unwrap();
        pair.b = Tensor::randn(0f32, 0.05, pair.b.shape(), &Device::Cpu).unwrap();
    }
    settings
}

fn tokens(ids: &[u32], answer_at: usize) -> Tokens {
    Tokens {
        ids: ids.to_vec(),
        answer_at,
        question: 0..0,
    }
}

fn batch() -> MicroBatch {
    MicroBatch::new(&[
        tokens(&[5, 90, 700, 41, 8, 9, 300], 3),
        tokens(&[7, 77, 777, 3], 2),
    ])
}

fn loss(decoder: &Decoder, batch: &MicroBatch) -> f64 {
    micro_step(decoder, batch, 1.0, &mut Gradients::default()).unwrap()
}

#[test]
fn every_pair_has_a_gradient_that_finite_differences_confirm() {
    let (mut decoder, settings) = small();
    check_slopes(&mut decoder, &settings, &batch(), 0.02);
}

/// Through biases, norms of queries and keys, norms behind branches, bent scores and logits, windows,
/// partial and stretched rotations, fused matrices: whatever a family has.
#[test]
fn gradients_of_every_family_are_confirmed() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families");
    let mut count = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let source = ModelSource::Directory(entry.unwrap().path());
        let mut decoder = Decoder::load(&source, &Device::Cpu, DType::F32).unwrap();
        let settings = LoraSettings {
            rank: 3,
            alpha: 6.0,
            ..LoraSettings::default()
        };
        let settings = with_pairs(&mut decoder, settings);
        let ids = |n: u32| -> Vec<u32> { (0..n).map(|i| (i * i * 7 + i * 3 + n) % 64).collect() };
        let batch = MicroBatch::new(&[tokens(&ids(40), 3), tokens(&ids(5), 1)]);
        check_slopes(&mut decoder, &settings, &batch, 0.004);
        count += 1;
    }
    assert!(count >= 12);
}

/// Along the gradient of each matrix the loss must rise by the gradient's squared norm; measured by
/// going `reach` both ways, which must be short for networks that bend much.
fn check_slopes(decoder: &mut Decoder, settings: &LoraSettings, batch: &MicroBatch, reach: f64) {
    let mut gradients = Gradients::default();
    micro_step(decoder, batch, 1.0, &mut gradients).unwrap();
    let sites = test_sites(decoder, settings);
    let linears = decoder.layers[0].linears().count();
    assert_eq!(gradients.pairs.len(), decoder.layers.len() * linears);
    for site in sites {
        let (d_a, d_b) = gradients.pairs[&site].clone();
        for (is_a, gradient) in [(true, d_a), (false, d_b)] {
            // Along the gradient itself the loss must rise by its squared norm per unit.
            let norm2 = gradient
                .sqr()
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap();
            assert!(norm2 > 0.0, "{} has no gradient", site.path());
            let step = reach / f64::from(norm2).sqrt();
            let mut at = |factor: f64| {
                let pair = linear_mut(decoder, site).unwrap().lora.as_mut().unwrap();
                let old = if is_a { pair.a.clone() } else { pair.b.clone() };
                let moved = (&old + (&gradient * factor).unwrap()).unwrap();
                if is_a {
                    pair.a = moved
                } else {
                    pair.b = moved
                }
                let value = loss(decoder, batch);
                let pair = linear_mut(decoder, site).unwrap().lora.as_mut().unwrap();
                if is_a {
                    pair.a = old
                } else {
                    pair.b = old
                }
                value
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            let error = (slope - f64::from(norm2)).abs() / f64::from(norm2);
            assert!(
                error < 1e-2,
                "{} {} A={is_a}: slope {slope}, expected {norm2}",
                decoder.config.model_type,
                site.path()
            );
        }
    }
}

#[test]
fn packing_changes_neither_loss_nor_gradients() {
    let (decoder, _) = small();
    let parts = [
        tokens(&[5, 90, 700, 41, 8, 9, 300], 3),
        tokens(&[7, 77, 777, 3], 2),
    ];
    let (mut together, mut apart) = (Gradients::default(), Gradients::default());
    let one = micro_step(&decoder, &batch(), 0.5, &mut together).unwrap();
    let two: f64 = parts
        .iter()
        .map(|part| micro_step(&decoder, &MicroBatch::new([part]), 0.5, &mut apart).unwrap())
        .sum();
    assert!((one - two).abs() < 1e-4, "{one} {two}");
    for (site, (a, b)) in &together.pairs {
        let (other_a, other_b) = &apart.pairs[site];
        for (x, y) in [(a, other_a), (b, other_b)] {
            let gap = (x - y).unwrap().abs().unwrap().max_all().unwrap();
            assert!(gap.to_scalar::<f32>().unwrap() < 1e-4, "{}", site.path());
        }
    }
}

fn form() -> PromptForm {
    PromptForm {
        system: Some("You read.".into()),
        answer: "Answer: {question}".into(),
        chat: crate::ChatOptions::default(),
    }
}

fn write_examples(directory: &Path, count: usize) {
    let place = RunDirectory::lock(directory).unwrap();
    let lines: Vec<String> = (0..count)
        .map(|i| {
            let example = Example {
                doc_id: None,
                question: format!("What is the number of case {i}?"),
                answer: format!("It is number {}.", i * 7),
                document: Some(format!("Case {i} has number {}.", i * 7)),
            };
            serde_json::to_string(&example).unwrap()
        })
        .collect();
    std::fs::write(place.staged_examples(), lines.join("\n")).unwrap();
}

fn settings() -> LoraSettings {
    LoraSettings {
        rank: 4,
        epochs: 6,
        learning_rate: 5e-3,
        batch_tokens: 64,
        with_document_share: 0.5,
        question_noise: 0.1,
        ..LoraSettings::default()
    }
}

/// Cancels after a number of steps.
struct StopAt(u64, u64);

impl TrainObserver for StopAt {
    fn step(&mut self, record: &StepRecord) {
        self.1 = record.step;
    }

    fn cancelled(&self) -> bool {
        self.1 >= self.0
    }
}

fn run(directory: &Path, mode: RunMode, stop: Option<u64>) -> crate::Result<super::TrainReport> {
    let mut observer = StopAt(stop.unwrap_or(u64::MAX), 0);
    train(
        &tiny(),
        DeviceChoice::Cpu,
        &RunDirectory::lock(directory)?,
        &settings(),
        mode,
        &form(),
        &mut observer,
    )
}

#[test]
fn a_resumed_run_ends_as_if_it_had_never_stopped() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for directory in [whole.path(), parts.path()] {
        write_examples(directory, 4);
    }
    let report = run(whole.path(), RunMode::New, None).unwrap();
    assert!(report.last_loss < report.first_loss, "{report:?}");
    let stopped = run(parts.path(), RunMode::New, Some(3)).unwrap_err();
    assert_eq!(stopped.kind, crate::ErrorKind::Interrupted);
    assert!(!parts.path().join(peft::CONFIG).exists());
    run(parts.path(), RunMode::Resume, None).unwrap();
    let read = |d: &Path| std::fs::read(d.join(peft::WEIGHTS)).unwrap();
    assert!(
        read(whole.path()) == read(parts.path()),
        "the adapters differ"
    );
    let steps = |d: &Path| -> Vec<u64> {
        log::read(&d.join(RUN).join(log::FILE))
            .unwrap()
            .iter()
            .map(|r| r.step)
            .collect()
    };
    assert_eq!(steps(parts.path()), (1..=report.steps).collect::<Vec<_>>());
    assert_eq!(steps(whole.path()), steps(parts.path()));
}

#[test]
fn the_written_adapter_attaches_to_the_base() {
    let directory = tempfile::tempdir().unwrap();
    write_examples(directory.path(), 2);
    run(directory.path(), RunMode::New, None).unwrap();
    let mut decoder = Decoder::load(&tiny(), &Device::Cpu, DType::F32).unwrap();
    let pairs = crate::model::attach_adapter(&mut decoder, directory.path()).unwrap();
    assert_eq!(pairs, decoder.layers.len() * 7);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write_examples(directory.path(), 0);
    let text = |r: crate::Result<super::TrainReport>| r.unwrap_err().to_string();
    assert!(text(run(directory.path(), RunMode::New, None)).contains("no training examples"));
    let directory = tempfile::tempdir().unwrap();
    write_examples(directory.path(), 2);
    run(directory.path(), RunMode::New, None).unwrap();
    let refused = text(run(directory.path(), RunMode::New, None));
    assert!(refused.contains("'new' does not touch"), "{refused}");
    write_examples(directory.path(), 3);
    let lines = || {
        let path = directory.path().join(RUN).join(EXAMPLES);
        std::fs::read_to_string(path).unwrap().lines().count()
    };
    let resumed = text(run(directory.path(), RunMode::Resume, None));
    assert!(resumed.contains("other examples"), "{resumed}");
    assert_eq!(lines(), 2, "a refused run replaced the examples");
    let check = |change: &dyn Fn(&mut LoraSettings), form: &PromptForm, mode| {
        let mut settings = settings();
        change(&mut settings);
        super::check(directory.path(), &tiny(), &settings, form, mode)
    };
    check(&|_| (), &form(), RunMode::Resume).unwrap();
    let longer = |settings: &mut LoraSettings| settings.epochs = 9;
    let was = settings().epochs;
    let refused = check(&longer, &form(), RunMode::Resume)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&format!("(epochs was {was}, is 9)")),
        "{refused}"
    );
    let other = PromptForm {
        system: Some("Be brief.".into()),
        ..form()
    };
    let refused = check(&longer, &other, RunMode::Resume)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("is 9) and prompts"), "{refused}");
    assert!(check(&|_| (), &form(), RunMode::New).is_err());
    for mode in [RunMode::Overwrite, RunMode::ResumeOrOverwrite] {
        check(&longer, &other, mode).unwrap();
    }
    // Fractions that a reader of JSON may round are no change.
    for rate in [
        "0.1",
        "0.00030000000000000003",
        "1.7976931348623157e-5",
        "0.123456789012345678",
    ] {
        let mut settings = settings();
        settings.set("learning_rate", rate).unwrap();
        let identity = |settings: &LoraSettings| super::run::Identity {
            settings: settings.clone(),
            base_digest: String::new(),
            examples_digest: String::new(),
            system: None,
            answer: String::new(),
        };
        let kept = serde_json::to_string(&identity(&settings)).unwrap();
        let kept: super::run::Identity = serde_json::from_str(&kept).unwrap();
        assert!(kept.differences(&identity(&settings)).is_empty(), "{rate}");
    }
    // An adapter from elsewhere is nobody's run to go on with.
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("adapter_config.json"), "{}").unwrap();
    for mode in [RunMode::New, RunMode::Resume] {
        let refused = super::check(foreign.path(), &tiny(), &settings(), &form(), mode);
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("adapter") && refused.contains("lora.mode"),
            "{refused}"
        );
    }
    run(directory.path(), RunMode::Overwrite, None).unwrap();
    assert_eq!(lines(), 3);
    let short = LoraSettings {
        max_example_tokens: 4,
        ..settings()
    };
    let too_long = train(
        &tiny(),
        DeviceChoice::Cpu,
        &RunDirectory::lock(directory.path()).unwrap(),
        &short,
        RunMode::Overwrite,
        &form(),
        &mut (),
    );
    assert!(text(too_long).contains("longer than 4 tokens"));
}

#[test]
fn two_runs_do_not_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let held = RunDirectory::lock(directory.path()).unwrap();
    let second = RunDirectory::lock(directory.path()).unwrap_err();
    assert_eq!(second.kind(), crate::ErrorKind::Unavailable);
    assert!(second.to_string().contains("another run"), "{second}");
    drop(held);
    RunDirectory::lock(directory.path()).unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(RunDirectory::lock(&file).is_err());
}

/// Stops a run of 4 examples at step 3 with checkpoints after each step.
fn stopped_run(directory: &Path) -> LoraSettings {
    write_examples(directory, 4);
    let settings = LoraSettings {
        checkpoint_steps: 1,
        ..settings()
    };
    let stopped = train(
        &tiny(),
        DeviceChoice::Cpu,
        &RunDirectory::lock(directory).unwrap(),
        &settings,
        RunMode::New,
        &form(),
        &mut StopAt(3, 0),
    );
    assert_eq!(stopped.unwrap_err().kind, crate::ErrorKind::Interrupted);
    settings
}

fn resume(directory: &Path, settings: &LoraSettings) -> crate::Result<super::TrainReport> {
    train(
        &tiny(),
        DeviceChoice::Cpu,
        &RunDirectory::lock(directory)?,
        settings,
        RunMode::Resume,
        &form(),
        &mut (),
    )
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let whole = tempfile::tempdir().unwrap();
    let settings = stopped_run(whole.path());
    resume(whole.path(), &settings).unwrap();
    let weights = |d: &Path| std::fs::read(d.join(peft::WEIGHTS)).unwrap();
    let state = |d: &Path, step: u64| {
        d.join(RUN)
            .join(format!("checkpoints/step-{step}/state.safetensors"))
    };
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("cut off", |file| {
            let bytes = std::fs::read(file).unwrap();
            std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("one bit in the values", |file| {
            let mut bytes = std::fs::read(file).unwrap();
            let at = bytes.len() - 5;
            bytes[at] ^= 1;
            std::fs::write(file, bytes).unwrap();
        }),
        ("empty", |file| std::fs::write(file, "").unwrap()),
        ("gone", |file| std::fs::remove_file(file).unwrap()),
    ];
    for (what, damage) in damages {
        let parts = tempfile::tempdir().unwrap();
        stopped_run(parts.path());
        damage(&state(parts.path(), 3));
        resume(parts.path(), &settings).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(weights(parts.path()) == weights(whole.path()), "{what}");
    }
    // Both: an error that says what to remove, and then it works.
    let parts = tempfile::tempdir().unwrap();
    stopped_run(parts.path());
    for step in [2, 3] {
        std::fs::write(state(parts.path(), step), "x").unwrap();
    }
    let error = resume(parts.path(), &settings).unwrap_err();
    assert_eq!(error.kind, crate::ErrorKind::Corrupt);
    assert!(error.to_string().contains("remove "), "{error}");
    std::fs::remove_dir_all(parts.path().join(RUN).join("checkpoints")).unwrap();
    resume(parts.path(), &settings).unwrap();
    assert!(weights(parts.path()) == weights(whole.path()));
    // A checkpoint of before the hash is taken as it is.
    let parts = tempfile::tempdir().unwrap();
    stopped_run(parts.path());
    let digest = state(parts.path(), 3).with_file_name("state.blake3");
    std::fs::remove_file(digest).unwrap();
    resume(parts.path(), &settings).unwrap();
    assert!(weights(parts.path()) == weights(whole.path()));
}
