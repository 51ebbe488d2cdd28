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
    /// The hosts are written, not the provider's own.
    pub(in crate::policy) explicit_hosts: bool,
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
pub(in crate::policy) const MAX_TOKENS: u64 = 1_000_000_000_000_000;

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
    let otherwise = provider
        .as_ref()
        .filter(|provider| !provider.value.default_hosts().is_empty())
        .map(|_| "then the provider's own hosts are meant");
    let mut hosts = read_hosts(decoder, list.as_ref(), otherwise);
    let mut models = Vec::new();
    if let Some(list) = fields.optional("models") {
        const EXPECTED: &str = "the name of a model, or a pattern such as claude-*";
        let items = decoder.some_items(&list, "model", Some("then every model is meant"));
        for model in decoder.parse_list(&items, EXPECTED, ModelPattern::parse) {
            models.push(model.value);
        }
    }
    fields.finish(decoder);
    let Spanned {
        value: provider,
        place,
    } = provider?;
    if list.is_none() {
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
        explicit_hosts: list.is_some(),
        endpoints: endpoints.into_iter().map(|path| path.value).collect(),
        models,
    })
}

fn read_filters(decoder: &mut Decoder<'_, '_>, rule: &mut Fields<'_>) -> Option<RawBudget> {
    let list = rule.optional("filters")?;
    let mut budget = None;
    for item in decoder.some_items(&list, "filter", Some("then there is none")) {
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
    let budget = RawBudget {
        per_day: per_day.flatten(),
        per_execution: per_execution.flatten(),
        output_per_request: output_per_request.flatten(),
    };
    let least = [budget.per_day, budget.per_execution]
        .into_iter()
        .flatten()
        .min();
    if let (Some(output), Some(least)) = (budget.output_per_request, least)
        && output > least
    {
        let place = decoder.place(at);
        let message = format!(
            "maxOutputTokensPerRequest ({output}) is more than the whole budget ({least}) has"
        );
        decoder.problems.warning(place, message).help(
            "a request that asks for so much is always refused: lower it, or raise the budget",
        );
    }
    Some(budget)
}
