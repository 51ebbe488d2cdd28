//! `postern explain`. The answer is the policy engine's; here it is put into words.

use super::check::show;
use super::daemon::Paint;
use super::load::{Known, no_gateway};
use super::output::{causes, complain, print};
use crate::outcome::DenyReason;
use crate::policy::explain::{
    Allowed, Circumstances, Explanation, Handling, Injected, Question, Refusal, explain,
};
use crate::policy::{
    Class, Diagnostic, Gateway, Injection, Policy, RuleName, SecretIndex, SecretRef, SecretState,
    SourceFile, TokenBudget, guarded,
};
use crate::store;
use anyhow::{Context, Result, bail};
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Wrong usage, or a policy that does not compile: neither yes nor no.
const NO_ANSWER: u8 = 2;

/// Say what would become of a request, connection or name, by which rule, or what is missing
///
/// The decision is made by the engine that decides in earnest, kernel stage included. A host name without
/// --address and without an alias is taken to lead to some public address that no rule names.
#[derive(Args)]
#[command(after_help = "\
Exit status: 0 allowed, 1 denied, 2 wrong usage or a policy with errors.

Examples:
  postern explain --policy policies/locked-down github.com:22
  postern explain --policy policies/locked-down dns:example.com
  postern explain --policy policies/anthropic --method POST \\
    https://api.anthropic.com/v1/messages
  postern explain --policy policies/internal-wiki --address 10.20.0.15 \\
    --json https://wiki.local/snippets/x")]
pub(super) struct Explain {
    /// Folder of policy files, or one file
    #[arg(long, value_name = "DIR")]
    policy: PathBuf,
    /// Which gateway; may be left out if the policy has one
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// URL, HOST:PORT, tls://HOST:PORT, tcp://HOST:PORT, dns:NAME or udp:IP:PORT
    #[arg(value_name = "QUESTION")]
    question: String,
    /// The request's method [default: GET]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// A header of the request, for rules that look at headers; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The model asked for, for rules that look at models
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The address that the name leads to, for the sandbox and the gateway alike (`--from-ip`: as if the
    /// gateway's resolver had answered from this IP)
    #[arg(long, visible_alias = "from-ip", value_name = "IP")]
    address: Option<IpAddr>,
    /// Folder of NAME/KEY secret files: a credential that the gateway would find neither there nor in the
    /// policy is denied as in earnest; without this it counts as there
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self.answer() {
            Ok((answer, status)) => {
                print(&answer)?;
                Ok(status)
            }
            Err(error) => {
                if self.json {
                    print(&format!("{:#}", self.no_answer(&error)))?;
                }
                complain(&format!("postern: {}", causes(&error)));
                Ok(ExitCode::from(NO_ANSWER))
            }
        }
    }

    /// For who reads JSON: that there is no answer, and why.
    fn no_answer(&self, error: &anyhow::Error) -> Value {
        let diagnostics = match error.downcast_ref::<Uncompiled>() {
            Some(Uncompiled(diagnostics)) => super::check::json(diagnostics),
            None => json!([]),
        };
        json!({
            "question": self.question,
            "allowed": null,
            "error": causes(error),
            "diagnostics": diagnostics,
        })
    }

    /// What is said, and the status.
    fn answer(&self) -> Result<(String, ExitCode)> {
        let question = Question::parse(&self.question)?.with_request(
            self.method.as_deref(),
            self.headers()?,
            self.model.clone(),
        )?;
        let (files, policy) = self.load()?;
        let gateway = self.choose(&policy)?;
        let known = match &self.secrets {
            Some(folder) => Some(Known::read(folder, &policy)?),
            None => None,
        };
        let known = known.as_ref();
        if let Some(why) = known.and_then(|known| known.objection_to_start(gateway)) {
            bail!("gateway {} does not start: {why}", gateway.name);
        }
        let exists = |secret: &SecretRef| known.is_none_or(|known| known.has(secret));
        let objection = |injection: &Injection| known?.objection(injection);
        let circumstances = Circumstances {
            address: self.address,
            secrets: Some(&exists),
            credentials: Some(&objection),
        };
        let explanation = explain(&files, gateway, &question, circumstances);
        let mut answer = if self.json {
            format!("{:#}", json(&self.question, gateway, &explanation))
        } else {
            text(&self.question, gateway, &explanation)
        };
        if let (Some(known), Err(Refusal::SecretMissing(secret)), false) =
            (known, &explanation.verdict.outcome, self.json)
            && let SecretState::Unusable(why) = known.state(secret)
        {
            answer.push_str(&format!("\n  namely   {why}"));
        }
        let denied = explanation.verdict.outcome.is_err();
        Ok((answer, ExitCode::from(u8::from(denied))))
    }

    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for header in &self.headers {
            let (name, value) = header
                .split_once(':')
                .with_context(|| format!("--header {header}: not of the form 'name: value'"))?;
            let name = HeaderName::from_bytes(name.trim().as_bytes())
                .with_context(|| format!("--header {header}"))?;
            let value = HeaderValue::from_str(value.trim())
                .with_context(|| format!("--header {header}"))?;
            headers.append(name, value);
        }
        Ok(headers)
    }

    fn load(&self) -> Result<(Vec<SourceFile>, Policy)> {
        let loaded = store::load(&self.policy)?;
        match loaded.compiled.policy {
            Some(policy) => Ok((loaded.files, policy)),
            None => {
                for diagnostic in &loaded.compiled.diagnostics {
                    complain(show(diagnostic, &loaded.files).trim_end_matches('\n'));
                }
                Err(Uncompiled(loaded.compiled.diagnostics).into())
            }
        }
    }

    fn choose<'p>(&self, policy: &'p Policy) -> Result<&'p Arc<Gateway>> {
        let names = || {
            policy
                .gateways
                .keys()
                .cloned()
                .collect::<Vec<_>>()
                .join(", ")
        };
        match &self.gateway {
            Some(name) => policy
                .gateways
                .get(name)
                .with_context(|| no_gateway(name, policy.gateways.keys())),
            None if policy.gateways.len() > 1 => bail!(
                "the policy has several gateways; choose one with --gateway: {}",
                names()
            ),
            None => policy
                .gateways
                .values()
                .next()
                .context("the policy has no gateway"),
        }
    }
}

/// Nothing can be asked of it.
#[derive(Debug, thiserror::Error)]
#[error("the policy has errors, and decides nothing")]
struct Uncompiled(Vec<Diagnostic>);

fn json(question: &str, gateway: &Gateway, explanation: &Explanation) -> Value {
    let verdict = &explanation.verdict;
    let mut answer = json!({
        "question": question,
        "gateway": &*gateway.name,
        "allowed": verdict.outcome.is_ok(),
        "class": verdict.class.map(class),
        "naming": explanation.naming.iter().map(|rule| placed(gateway, rule)).collect::<Value>(),
    });
    let more = match &verdict.outcome {
        Ok(allowed) => json!({
            "rule": allowed.rule.as_ref().map(|rule| placed(gateway, rule)),
            "handling": match allowed.handling {
                Handling::Resolve => "resolve",
                Handling::Direct => "direct",
                Handling::Splice => "splice",
                Handling::Read => "read",
                Handling::Send => "send",
            },
            "target": allowed.target.as_ref().map(ToString::to_string),
            "injects": allowed.injects.iter().map(injected).collect::<Value>(),
            "budget": allowed.budget.as_ref().map(|budget| json!({
                "route": &*budget.route,
                "maxTokensPerDay": budget.max_tokens_per_day,
                "maxTokensPerExecution": budget.max_tokens_per_execution,
                "maxOutputTokensPerRequest": budget.max_output_tokens_per_request,
            })),
        }),
        Err(_) => {
            let reason = DenyReason::foretold(verdict);
            let remedy = explanation.remedy.as_ref();
            json!({
                "stage": reason.map(|(stage, _)| stage.as_str()),
                "reason": reason.map(|(_, reason)| reason.as_str()),
                "explanation": reason.map(|(_, reason)| reason.explanation()),
                "detail": detail(verdict.outcome.as_ref().err()),
                "remedy": remedy.map(|remedy| json!({
                    "listener": remedy.listener,
                    "documents": remedy.documents,
                    "caution": remedy.caution,
                })),
            })
        }
    };
    if let (Value::Object(answer), Value::Object(more)) = (&mut answer, more) {
        answer.extend(more);
    }
    answer
}

fn placed(gateway: &Gateway, rule: &RuleName) -> Value {
    let place = gateway.place_of(rule);
    json!({
        "name": &**rule,
        "file": place.map(|place| place.file.as_str()),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
    })
}

fn injected(injected: &Injected) -> Value {
    let secrets: Vec<String> = injected.secrets.iter().map(ToString::to_string).collect();
    json!({"policy": &*injected.policy, "sets": injected.place, "secrets": secrets})
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Tls => "tls",
        Class::Http => "http",
        Class::Tcp => "tcp",
    }
}

/// For people: the verdict on one line, then a line a fact.
fn text(question: &str, gateway: &Gateway, explanation: &Explanation) -> String {
    let paint = Paint::for_stdout();
    let mut lines = Vec::new();
    match &explanation.verdict.outcome {
        Ok(allowed) => {
            lines.push(format!("{}  {question}", paint.paint("32", "allowed")));
            lines.extend(of_allowed(gateway, explanation.verdict.class, allowed));
        }
        Err(refusal) => {
            lines.push(format!("{}  {question}", paint.paint("31", "denied")));
            lines.extend(of_refusal(gateway, explanation, refusal));
        }
    }
    lines.join("\n")
}

fn of_allowed(gateway: &Gateway, class: Option<Class>, allowed: &Allowed) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(rule) = &allowed.rule {
        lines.push(format!("  by       {}", at(gateway, rule)));
    }
    let handling = match (allowed.handling, class) {
        (Handling::Resolve, _) => "the gateway's resolver answers, whatever server is asked",
        (Handling::Direct, _) => "goes out directly, each datagram judged by the kernel",
        (Handling::Splice, Some(Class::Tls)) => "TLS passes through unread; nothing is injected",
        (Handling::Splice, _) => "copied unread, as what is neither TLS nor HTTP",
        (Handling::Read, Some(Class::Http)) => {
            "read as plain HTTP; each request is decided for itself"
        }
        (Handling::Read, _) => "TLS is terminated; each request is decided for itself",
        (Handling::Send, _) => "sent",
    };
    lines.push(format!("  how      {handling}"));
    if let Some(target) = &allowed.target {
        lines.push(format!("  dialled  {target}"));
    }
    for injected in &allowed.injects {
        let secrets: Vec<String> = injected.secrets.iter().map(ToString::to_string).collect();
        let secrets = match secrets.as_slice() {
            [] => "no secret".to_owned(),
            some => format!("secret {}", some.join(", ")),
        };
        lines.push(format!(
            "  sets     {} by {}, from {secrets}",
            injected.place, injected.policy
        ));
    }
    lines.extend(allowed.budget.as_deref().map(counts));
    lines
}

/// What a budget leaves to spend is known to the running gateway alone.
fn counts(budget: &TokenBudget) -> String {
    let bounds = [
        (budget.max_tokens_per_day, "a day"),
        (budget.max_tokens_per_execution, "an execution"),
        (budget.max_output_tokens_per_request, "of output a request"),
    ];
    let bounds = bounds
        .iter()
        .filter_map(|(bound, per)| bound.map(|bound| format!("{bound} {per}")));
    let bounds: Vec<String> = bounds.collect();
    format!(
        "  counts   towards the token budget of {}, if that has enough left: {}",
        budget.route,
        bounds.join(", ")
    )
}

fn of_refusal(gateway: &Gateway, explanation: &Explanation, refusal: &Refusal) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((stage, reason)) = DenyReason::foretold(&explanation.verdict) {
        lines.push(format!(
            "  reason   {}: {}",
            reason.as_str(),
            reason.explanation()
        ));
        let seen = match (stage.as_str(), reason.status()) {
            ("kernel", _) => "EPERM from connect()".to_owned(),
            ("dns", _) if matches!(refusal, Refusal::Withheld(_)) => {
                "an answer without the address".to_owned()
            }
            ("dns", _) => "no such name (NXDOMAIN)".to_owned(),
            ("http" | "dial", status) => format!("HTTP status {status}"),
            (_, status) => format!("HTTP status {status}, or the connection is closed"),
        };
        lines.push(format!(
            "  stage    {}; the sandbox sees {seen}",
            stage.as_str()
        ));
    }
    lines.extend(detail(Some(refusal)).map(|detail| format!("  because  {detail}")));
    for rule in &explanation.naming {
        lines.push(format!("  named by {}", at(gateway, rule)));
    }
    match &explanation.remedy {
        Some(remedy) => {
            if let Some(listener) = &remedy.listener {
                lines.push(format!(
                    "\nThis listener would allow it, in spec.listeners of EgressGateway {}{}:\n",
                    gateway.name,
                    if remedy.documents.is_empty() {
                        ""
                    } else {
                        ", with what follows"
                    },
                ));
                lines.push(format!("  - {listener}"));
            }
            if !remedy.documents.is_empty() {
                lines.push("\nThis would allow it, in a file of the policy folder:\n".to_owned());
                lines.extend(remedy.documents.lines().map(|line| format!("  {line}")));
            }
            lines.extend(
                remedy
                    .caution
                    .iter()
                    .map(|caution| format!("\nMind: {caution}.")),
            );
        }
        // What to do about a secret has been said.
        None if matches!(
            refusal,
            Refusal::SecretMissing(_) | Refusal::CredentialUnusable(_) | Refusal::NotMetered(_)
        ) => {}
        None => lines.push("\nNo rule would allow it.".to_owned()),
    }
    lines
}

fn at(gateway: &Gateway, rule: &RuleName) -> String {
    match gateway.place_of(rule) {
        Some(place) => format!("{rule} ({place})"),
        None => rule.to_string(),
    }
}

/// What the reason alone does not say.
fn detail(refusal: Option<&Refusal>) -> Option<String> {
    match refusal? {
        Refusal::SecretMissing(secret) => Some(format!(
            "the secret {secret} does not exist: put the value into the secrets folder as {secret}"
        )),
        Refusal::GuardedAnswer(address) => Some(format!(
            "the name leads to {address}, which only a rule or an alias can name; who asks the gateway's resolver is not even told it"
        )),
        Refusal::Withheld(address) => Some(format!(
            "the name leads to {address}, which only a rule or an alias can name: the answer leaves it out"
        )),
        Refusal::KernelGuard(address) if address.is_loopback() => Some(
            "only a rule that names the address opens it; in a network namespace of its own, a sandbox has \
             a loopback of its own"
                .to_owned(),
        ),
        Refusal::KernelGuard(address) => Some(format!(
            "only a rule that names the address opens it, since it is {}",
            guarded(*address).unwrap_or("special")
        )),
        Refusal::NotMetered(route) => Some(format!(
            "the token budget of {route} applies, and a call is let through only where what it spends can be counted; \
             an AIProviderRoute rule for this endpoint without a TokenBudget, before that one, would let it through"
        )),
        Refusal::CredentialUnusable(why) => Some(why.clone()),
        Refusal::DnsPort => Some("port 53 is for DNS, which the gateway answers itself".to_owned()),
        _ => None,
    }
}
