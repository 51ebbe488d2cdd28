//! `AIProviderRoute` as written.
//!
//! It refuses to know whether its gateways exist and what is injected on it.

use super::leaf::{read_hosts, read_paths};
use super::route::{RawRule, read_rules};
use super::{RawParent, read_gateways};
use crate::policy::decode::{At, Decoder, Fields};
use crate::policy::problems::{Place, Spanned};
use crate::policy::{HostPattern, ModelPattern, PathPattern, Provider};

pub(in crate::policy) struct RawAiRoute {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) parents: Vec<RawParent>,
    pub(in crate::policy) rules: Vec<RawRule<RawAiMatch, Option<RawBudget>>>,
}

pub(in crate::policy) struct RawAiMatch {
    pub(in crate::policy) place: Place,
    pub(in crate::policy) provider: Provider,
    pub(in crate::policy) hosts: Vec<Spanned<HostPattern>>,
    /// Empty for every path.
    pub(in crate::policy) endpoints: Vec<PathPattern>,
    /// Empty for every model.
    pub(in crate::policy) models: Vec<ModelPattern>,
}

/// The filter of type `TokenBudget`.
#[derive(Clone, Copy, Default)]
pub(in crate::policy) struct RawBudget {
    pub(in crate::policy) per_day: Option<u64>,
    pub(in crate::policy) per_execution: Option<u64>,
    pub(in crate::policy) output_per_request: Option<u64>,
}

/// More tokens than all models of the world make in a day, and far from overflow when summed.
const MAX_TOKENS: u64 = 1_000_000_000_000_000;

impl RawAiRoute {
    pub(super) fn read(
        decoder: &mut Decoder<'_, '_>,
        spec: Option<Fields<'_>>,
        name: Spanned<String>,
    ) -> Self {
        let mut raw = Self {
            name,
            parents: Vec::new(),
            rules: Vec::new(),
        };
        if let Some(mut spec) = spec {
            raw.parents = read_gateways(decoder, &mut spec);
            raw.rules = read_rules(decoder, &mut spec, read_match, read_filters);
            spec.finish(decoder);
        }
        raw
    }
}

fn read_match(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<RawAiMatch> {
    let mut fields = decoder.fields(at)?;
    let provider = fields
        .required(decoder, "provider")
        .and_then(|provider| decoder.choice(&provider, Provider::NAMES));
    let endpoints = fields.optional("endpoints");
    let endpoints = read_paths(decoder, endpoints.as_ref());
    let list = fields.optional("hosts");
    let mut hosts = read_hosts(decoder, list.as_ref());
    let mut models = Vec::new();
    if let Some(list) = fields.optional("models") {
        const EXPECTED: &str = "the name of a model, or a pattern such as claude-*";
        for model in decoder.parse_list(&list, EXPECTED, ModelPattern::parse) {
            models.push(model.value);
        }
    }
    fields.finish(decoder);
    let Spanned {
        value: provider,
        place,
    } = provider?;
    let written = list.is_some_and(|list| !decoder.items(&list).is_empty());
    if !written {
        let defaults = provider.default_hosts();
        if defaults.is_empty() {
            decoder
                .problems
                .error(place, "this provider has no hosts of its own")
                .help("name them: `hosts: [api.example.com]`");
        }
        hosts.extend(defaults.iter().filter_map(|host| {
            let value = HostPattern::parse(host).ok()?;
            Some(Spanned { value, place })
        }));
    }
    Some(RawAiMatch {
        place: decoder.place(at),
        provider,
        hosts,
        endpoints: endpoints.into_iter().map(|path| path.value).collect(),
        models,
    })
}

fn read_filters(decoder: &mut Decoder<'_, '_>, rule: &mut Fields<'_>) -> Option<RawBudget> {
    let list = rule.optional("filters")?;
    let mut budget = None;
    for item in decoder.items(&list) {
        let Some(mut fields) = decoder.fields(&item) else {
            continue;
        };
        if let Some(kind) = fields.required(decoder, "type") {
            decoder.choice(&kind, &[("TokenBudget", ())]);
        }
        let found = fields
            .required(decoder, "tokenBudget")
            .and_then(|found| read_budget(decoder, &found));
        fields.finish(decoder);
        if budget.is_some() {
            let place = decoder.place(&item);
            decoder
                .problems
                .error(place, "a second token budget for one rule")
                .help("write all its bounds in one filter");
        }
        budget = budget.or(found);
    }
    budget
}

fn read_budget(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<RawBudget> {
    let mut fields = decoder.fields(at)?;
    let mut bound = |name| {
        let field = fields.optional(name)?;
        // Zero could mean none or no limit: a reader would have to know.
        let bound = decoder.integer(&field, 1, MAX_TOKENS);
        Some(bound.map(|bound| bound.value))
    };
    let per_day = bound("maxTokensPerDay");
    let per_execution = bound("maxTokensPerExecution");
    let output_per_request = bound("maxOutputTokensPerRequest");
    fields.finish(decoder);
    if per_day.is_none() && per_execution.is_none() && output_per_request.is_none() {
        let place = decoder.place(at);
        decoder
            .problems
            .error(place, format!("`{}` has no bound", at.path))
            .expected(
                "one at least of maxTokensPerDay, maxTokensPerExecution and maxOutputTokensPerRequest",
            );
    }
    Some(RawBudget {
        per_day: per_day.flatten(),
        per_execution: per_execution.flatten(),
        output_per_request: output_per_request.flatten(),
    })
}
