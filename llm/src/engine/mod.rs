//! How prompts of many documents become one batch: sessions, prefixes, branches, completions.
