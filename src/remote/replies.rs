//! Replies that were paid for: a file that keeps each as it comes, so that a run that was stopped or
//! killed asks for none of them again.
//!
//! A reply is found by a hash of all that was asked: model, revision, prompt, sampling, seed and
//! budget. A line holds the reply and that hash, not the prompt. Lines are appended in one write each;
//! half of one, which a full disk or a power failure leaves, is passed over. The index takes some 50
//! bytes of memory per reply.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use casebook_llm::Finish;
use casebook_llm::output::{self, Lock};
use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::request::Chat;
use super::usage::Usage;
use crate::error::{Error, ErrorKind, Result};

/// Longest line that is one of ours.
const MOST_BYTES: usize = 16 << 20;

/// Hash over all that was asked.
pub(super) type Key = [u8; 16];

/// The file of replies, with an index in memory. One process at a time has it.
#[derive(Debug)]
pub(crate) struct Replies {
    path: PathBuf,
    open: Mutex<Open>,
    _lock: Lock,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Where the line of each reply is.
    index: HashMap<Key, (u64, u32)>,
    end: u64,
    /// The last line is not whole: the next one begins behind a line break.
    torn: bool,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    text: String,
    /// It was cut at its budget.
    cut: bool,
    prompt_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

/// The key of `chat`, asked of the model that `digest` identifies.
pub(super) fn key(digest: &str, chat: &Chat) -> Key {
    let request = &chat.request;
    let sampling = &request.sampling;
    let all = serde_json::json!([
        digest,
        chat.system,
        chat.user,
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.min_p,
        chat.seed(),
        request.max_new_tokens,
        request.stop,
    ]);
    let hash = blake3::hash(all.to_string().as_bytes());
    let mut key = Key::default();
    key.copy_from_slice(&hash.as_bytes()[..16]);
    key
}

impl Replies {
    /// Opens the file `path`, or makes it. Blocks while its lines are read.
    ///
    /// # Errors
    /// Another process that has it; a path that is no file of one's own; a disk that is full.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let lock = Lock::take(&path.with_file_name(format!(".{name}.lock")), path)?;
        output::check_file(path)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path);
        let file = file.map_err(|e| failed(path, e))?;
        let open = index(file).map_err(|e| failed(path, e))?;
        Ok(Self {
            path: path.to_path_buf(),
            open: Mutex::new(open),
            _lock: lock,
        })
    }

    /// The reply with `key`, if there is one.
    pub(super) async fn find(self: &Arc<Self>, key: Key) -> Result<Option<Answer>> {
        let replies = Arc::clone(self);
        self.blocking(move || replies.read(&key)).await
    }

    /// Keeps a reply.
    pub(super) async fn keep(self: &Arc<Self>, key: Key, answer: &Answer) -> Result<()> {
        let line = Line {
            key: hex(&key),
            text: answer.text.clone(),
            cut: answer.finish == Finish::Length,
            prompt_tokens: answer.usage.prompt,
            cached_tokens: answer.usage.cached,
            output_tokens: answer.usage.output,
        };
        let replies = Arc::clone(self);
        self.blocking(move || replies.write(key, &line)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))?;
        done.map_err(|e| failed(&self.path, e))
    }

    fn read(&self, key: &Key) -> std::io::Result<Option<Answer>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((at, length)) = open.index.get(key).copied() else {
            return Ok(None);
        };
        let mut line = vec![0; length as usize];
        open.file.seek(SeekFrom::Start(at))?;
        open.file.read_exact(&mut line)?;
        // What changed under our hands is not there.
        let line = serde_json::from_slice::<Line>(&line).ok();
        Ok(line.filter(|line| line.key == hex(key)).map(Line::answer))
    }

    fn write(&self, key: Key, line: &Line) -> std::io::Result<()> {
        let text = serde_json::to_vec(line)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::with_capacity(text.len() + 2);
        if open.torn {
            bytes.push(b'\n');
        }
        let at = open.end + bytes.len() as u64;
        bytes.extend_from_slice(&text);
        bytes.push(b'\n');
        open.torn = true;
        // The file is opened to append, wherever a reader stands.
        open.file.write_all(&bytes)?;
        open.torn = false;
        open.end += bytes.len() as u64;
        open.index.insert(key, (at, text.len() as u32));
        Ok(())
    }
}

impl Line {
    fn answer(self) -> Answer {
        Answer {
            text: self.text,
            finish: match self.cut {
                true => Finish::Length,
                false => Finish::Stop,
            },
            usage: Usage {
                prompt: self.prompt_tokens,
                cached: self.cached_tokens,
                output: self.output_tokens,
            },
            model: None,
        }
    }
}

/// Where the replies of `file` are.
fn index(file: File) -> std::io::Result<Open> {
    let mut index = HashMap::new();
    let mut reader = BufReader::new(&file);
    let (mut at, mut torn) = (0, false);
    let mut line = vec![];
    loop {
        line.clear();
        let length = (&mut reader)
            .take(MOST_BYTES as u64)
            .read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        torn = line.last() != Some(&b'\n');
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if !torn
            && let Ok(found) = serde_json::from_slice::<Line>(text)
            && let Some(key) = unhex(&found.key)
        {
            index.insert(key, (at, text.len() as u32));
        }
        at += length as u64;
    }
    Ok(Open {
        file,
        index,
        end: at,
        torn,
    })
}

fn hex(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Key> {
    let number = u128::from_str_radix(text, 16).ok();
    number.filter(|_| text.len() == 32).map(u128::to_be_bytes)
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    casebook_llm::Error::io(format!("the file of replies {}", path.display()), error).into()
}

#[cfg(test)]
mod tests {
    use casebook_llm::{Request, Sampling};

    use super::*;

    fn answer(text: &str, cut: bool) -> Answer {
        Answer {
            text: text.to_owned(),
            finish: match cut {
                true => Finish::Length,
                false => Finish::Stop,
            },
            usage: Usage {
                prompt: Some(12),
                cached: None,
                output: Some(3),
            },
            model: None,
        }
    }

    #[tokio::test]
    async fn what_was_kept_is_found_again_and_half_a_line_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out/replies.jsonl");
        let (one, two) = (answer("a \"text\"\nof lines", false), answer("", true));
        let replies = Arc::new(Replies::open(&path).unwrap());
        assert_eq!(replies.find([1; 16]).await.unwrap(), None);
        replies.keep([1; 16], &one).await.unwrap();
        assert_eq!(replies.find([1; 16]).await.unwrap(), Some(one.clone()));
        replies.keep([0; 16], &two).await.unwrap();
        // Read and written in any order.
        assert_eq!(replies.find([1; 16]).await.unwrap(), Some(one.clone()));
        let busy = Replies::open(&path).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Unavailable);
        drop(replies);

        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"key\": \"03\", \"te");
        std::fs::write(&path, bytes).unwrap();
        let replies = Arc::new(Replies::open(&path).unwrap());
        assert_eq!(replies.find([0; 16]).await.unwrap(), Some(two.clone()));
        replies.keep([3; 16], &one).await.unwrap();
        drop(replies);
        let replies = Arc::new(Replies::open(&path).unwrap());
        for (key, wanted) in [([0; 16], &two), ([1; 16], &one), ([3; 16], &one)] {
            assert_eq!(replies.find(key).await.unwrap().as_ref(), Some(wanted));
        }
        // A file that became another one holds nothing.
        std::fs::write(&path, "x".repeat(1000)).unwrap();
        assert_eq!(replies.find([1; 16]).await.unwrap(), None);
    }

    #[test]
    fn a_key_is_of_all_that_was_asked() {
        let base = || Chat {
            system: Some("s".into()),
            user: "u".into(),
            request: Request {
                sampling: Sampling {
                    temperature: 0.8,
                    ..Sampling::default()
                },
                ..Request::default()
            },
        };
        let all = key("d", &base());
        let other = |change: fn(&mut Chat)| {
            let mut chat = base();
            change(&mut chat);
            assert_ne!(key("d", &chat), all);
        };
        assert_eq!(key("d", &base()), all);
        assert_ne!(key("e", &base()), all);
        other(|c| c.system = None);
        other(|c| c.user.push('x'));
        other(|c| c.request.seed = 1);
        other(|c| c.request.max_new_tokens += 1);
        other(|c| c.request.stop.push("x".into()));
        other(|c| c.request.sampling.temperature = 0.7);
        other(|c| c.request.sampling.top_p = 0.9);
        other(|c| c.request.sampling.top_k = 9);
        other(|c| c.request.sampling.min_p = 0.1);
    }
}
