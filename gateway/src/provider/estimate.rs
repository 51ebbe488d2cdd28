//! What a stream that ends without counts has cost, where that can be told from what it brought. It refuses to know
//! budgets: an estimate is nobody's count.

/// Bytes of output that are taken for one token. English has 4 to 5, code 3 to 4, most other languages 3: rather too high.
const BYTES_PER_TOKEN: u64 = 3;
/// How the names of models begin that say all that they are paid for. Others may think without showing it, which no
/// stream tells of: OpenAI's from o1 and gpt-5 on, and whatever is not known.
const ALL_IS_SAID: [&str; 12] = [
    "gpt-3.5-",
    "gpt-35-",
    "gpt-4-",
    "gpt-4o",
    "gpt-4.1",
    "chatgpt-4o",
    "gpt-5-chat",
    "davinci-",
    "babbage-",
    "llama",
    "mixtral",
    "codestral",
];

/// Parts of names of models that think, speak or search as well.
const NOT_ALL: [&str; 5] = ["audio", "search", "realtime", "nemotron", "r1"];

/// Output tokens of an answer by `model` that came as `pieces` of `bytes` in all; `None` if there may have been more.
/// An answer of which nothing is known to be output has said what it has said in another way.
pub(super) fn output(model: Option<&str>, pieces: u64, bytes: u64) -> Option<u64> {
    if bytes == 0 {
        return None;
    }
    // A piece has a token at least, and where it has more, so have its bytes.
    says_all(model?).then(|| pieces.max(bytes.div_ceil(BYTES_PER_TOKEN)))
}

/// Is a model of this name known to say all that it is paid for?
pub fn says_all(model: &str) -> bool {
    let Some(model) = model.rsplit('/').next() else {
        return false;
    };
    // Of one's own making: `ft:gpt-4o-mini:NAME`.
    let model = model.strip_prefix("ft:").unwrap_or(model);
    let begins = |name: &&str| {
        let start = model.get(..name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    let is_known = ALL_IS_SAID.iter().any(begins) || model == "gpt-4";
    let model = model.to_ascii_lowercase();
    is_known && !NOT_ALL.iter().any(|part| model.contains(part))
}

#[cfg(test)]
mod tests {
    use super::output;

    #[test]
    fn a_model_that_may_think_unseen_has_no_estimate() {
        for model in [
            "gpt-4",
            "gpt-4o-mini-2024-07-18",
            "gpt-4.1",
            "ft:gpt-4o:me",
            "meta-llama/Llama-3-8b",
        ] {
            assert_eq!(output(Some(model), 10, 12), Some(10), "{model}");
            assert_eq!(output(Some(model), 10, 40), Some(14), "{model}");
        }
        for model in [
            "o3-mini",
            "gpt-5",
            "gpt-5.1-chat-latest",
            "openai/o1",
            "m",
            "",
            "gpt-4o-audio-preview",
            "gpt-4o-search-preview",
            "nvidia/Llama-3.3-Nemotron-Super",
        ] {
            assert_eq!(output(Some(model), 10, 12), None, "{model}");
        }
        assert_eq!(output(None, 10, 12), None);
        assert_eq!(output(Some("gpt-4o"), 1, 0), None, "nothing that is known");
    }
}
