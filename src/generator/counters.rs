//! What generation took, in tokens; a server may leave some of it unsaid.

/// A sum of which parts may be unsaid. An unsaid part is not zero: it makes the sum unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    said: u64,
    unsaid: u64,
}

impl Tokens {
    /// One part, if it was said.
    pub fn new(part: Option<u64>) -> Self {
        match part {
            Some(said) => Self { said, unsaid: 0 },
            None => Self { said: 0, unsaid: 1 },
        }
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            said: self.said.saturating_add(other.said),
            unsaid: self.unsaid + other.unsaid,
        }
    }

    /// What came to this since it was `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            said: self.said.saturating_sub(before.said),
            unsaid: self.unsaid.saturating_sub(before.unsaid),
        }
    }

    /// The sum; none if a part of it was not said.
    pub fn sum(self) -> Option<u64> {
        (self.unsaid == 0).then_some(self.said)
    }

    /// The sum of the parts that were said.
    pub fn said(self) -> u64 {
        self.said
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What generation did. `EXPLAIN ANALYZE` and `result.json` show all of it, by these names.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Tokens,)*
            /// Replies that a model was asked for.
            pub requests: u64,
            /// Replies that an earlier run was given and this one took from its file.
            pub kept_replies: u64,
        }

        impl Counters {
            /// The names of the token counters, in order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// The token counters in the order of their names.
            pub fn tokens(&self) -> impl Iterator<Item = Tokens> + use<> {
                [$(self.$name),*].into_iter()
            }

            /// What came to these since they were `before`.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                Self {
                    $($name: self.$name.since(before.$name),)*
                    requests: self.requests.saturating_sub(before.requests),
                    kept_replies: self.kept_replies.saturating_sub(before.kept_replies),
                }
            }

            /// The sum of two.
            #[must_use]
            pub fn plus(&self, other: &Self) -> Self {
                Self {
                    $($name: self.$name.plus(other.$name),)*
                    requests: self.requests + other.requests,
                    kept_replies: self.kept_replies + other.kept_replies,
                }
            }
        }
    };
}

counters! {
    /// Prefilled for system texts.
    system_tokens,
    /// Prefilled for documents.
    chunk_tokens,
    /// Prefilled for tasks, and for prompts without a document.
    suffix_tokens,
    /// Prefilled in all.
    prefill_tokens,
    /// Taken from a shared prefix instead of being prefilled again.
    shared_prefix_tokens,
    /// In all prompts, shared ones included.
    prompt_tokens,
    /// Generated.
    decode_tokens,
}

impl From<casebook_llm::Counters> for Counters {
    fn from(own: casebook_llm::Counters) -> Self {
        let said = |tokens: u64| Tokens::new(Some(tokens));
        Self {
            system_tokens: said(own.system_tokens),
            chunk_tokens: said(own.chunk_tokens),
            suffix_tokens: said(own.suffix_tokens),
            prefill_tokens: said(own.prefill_tokens),
            shared_prefix_tokens: said(own.shared_prefix_tokens),
            prompt_tokens: said(own.prompt_tokens),
            decode_tokens: said(own.decode_tokens),
            requests: own.branches,
            kept_replies: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_said_is_not_zero() {
        let none = Tokens::default();
        assert_eq!(none.sum(), Some(0));
        let some = none.plus(Tokens::new(Some(3))).plus(Tokens::new(Some(4)));
        assert_eq!(some.sum(), Some(7));
        let unsaid = some.plus(Tokens::new(None));
        assert_eq!((unsaid.sum(), unsaid.said()), (None, 7));
        // What comes later is known by itself.
        let later = unsaid.plus(Tokens::new(Some(5)));
        assert_eq!(later.since(unsaid).sum(), Some(5));
        assert_eq!(later.since(some).sum(), None);
    }

    #[test]
    fn every_counter_is_summed_and_has_its_name() {
        let own = casebook_llm::Counters {
            system_tokens: 1,
            chunk_tokens: 2,
            suffix_tokens: 4,
            prefill_tokens: 7,
            shared_prefix_tokens: 8,
            decode_tokens: 16,
            prompt_tokens: 32,
            branches: 64,
        };
        let counters = Counters::from(own);
        let all = counters.plus(&counters);
        let sums: Vec<_> = all.tokens().map(|t| t.sum().unwrap()).collect();
        assert_eq!(sums, [2, 4, 8, 14, 16, 64, 32]);
        assert_eq!(Counters::NAMES[5], "prompt_tokens");
        assert_eq!((all.requests, all.kept_replies), (128, 0));
        assert_eq!(all.since(&counters), counters);
    }
}
