//! The decision on one request, and what is set on it.
//!
//! It refuses to know connections: it is given the permit of one.

use super::{Denial, Permit, RequestFacts, RequestPermit, Target};
use crate::policy::rules::{Allows, Grant, HttpRule, RequestRule};
use crate::policy::{Gateway, Host, Injection, PathPattern, Provider};
use http::Method;
use std::sync::Arc;

impl Gateway {
    /// The decision on one request of a permitted connection. Only a permit for a *name* leads to
    /// injections, and only for requests to that very name: a credential never goes where an address led.
    ///
    /// A host that an `EgressHTTPRoute` names must match one of the rules that name it, whatever else allows the
    /// request; the first one that matches sets its credentials too.
    ///
    /// # Errors
    /// [`Denial::RequestNotAllowed`] if the request is for another host or port than the permit's, if
    /// the host is allowed for certain requests alone and this is none of them, or if it is a TRACE
    /// that would be answered with the credential.
    pub fn authorize_request(
        &self,
        permit: &Permit,
        request: &RequestFacts<'_>,
    ) -> Result<RequestPermit, Denial> {
        if request.port != permit.port() {
            return Err(Denial::RequestNotAllowed);
        }
        let narrowing = self.narrowing(permit, request)?;
        let host = match &permit.target {
            Target::Name { host, .. } if Some(host) == request.host => host,
            Target::Name { .. } => return Err(Denial::RequestNotAllowed),
            // No credential, even if the rule has one.
            Target::Address(_) => return untouched(permit, narrowing),
        };
        let mut granted = match self.granting(host, permit, request) {
            (Some((grant, rule)), second) => combined(grant, rule, second),
            (None, _) => untouched(permit, narrowing)?,
        };
        if let Some(rule) = narrowing {
            granted.add(&rule.injections, rule.credential.as_ref());
            granted.narrow(&rule.methods, rule.path.as_slice());
        }
        // TRACE sends back what it was sent (RFC 9110 section 9.3.8), the injected header included.
        if !granted.injections.is_empty() && request.method.eq_ignore_ascii_case("TRACE") {
            return Err(Denial::RequestNotAllowed);
        }
        Ok(granted)
    }

    /// Does the decision on this request depend on its model? Then the model must be known (its body read)
    /// before [`Gateway::authorize_request`] is asked; [`RequestFacts::model`] plays no part here. A request
    /// whose model stays unknown matches no rule for certain models.
    #[must_use]
    pub fn needs_model(&self, permit: &Permit, request: &RequestFacts<'_>) -> bool {
        self.model_provider(permit, request).is_some()
    }

    /// As [`Gateway::needs_model`]: the provider whose requests say what the model is.
    #[must_use]
    pub fn model_provider(&self, permit: &Permit, request: &RequestFacts<'_>) -> Option<Provider> {
        let Target::Name { host, .. } = &permit.target else {
            return None;
        };
        if Some(host) != request.host || self.narrowing(permit, request).is_err() {
            return None;
        }
        // The first route that matches without regard to the model is the one, if it names no models.
        self.request_rules(host, permit, request)
            .map(|(_, rule)| rule)
            .find(|rule| rule.provider.is_some() && rule.matches_but_for_the_model(request))
            .filter(|rule| !rule.models.is_empty())
            .and_then(|rule| rule.provider)
    }

    /// The provider whose host the request is for, whether or not the request is allowed: for the record.
    #[must_use]
    pub fn asked_provider(&self, permit: &Permit, request: &RequestFacts<'_>) -> Option<Provider> {
        let Target::Name { host, .. } = &permit.target else {
            return None;
        };
        self.request_rules(host, permit, request)
            .find_map(|(_, rule)| rule.provider)
    }

    /// The first `EgressHTTPRoute` rule that allows the request; `None` if none names its host.
    fn narrowing(
        &self,
        permit: &Permit,
        request: &RequestFacts<'_>,
    ) -> Result<Option<&HttpRule>, Denial> {
        let Some(host) = request.host else {
            return Ok(None);
        };
        let mut rules = self.rules.http_naming(host).peekable();
        if rules.peek().is_none() {
            return Ok(None);
        }
        // A credential goes out in the clear only where the policy names the port.
        let safe = |rule: &HttpRule| {
            rule.injections.is_empty() || request.tls || self.plaintext_named(host, permit)
        };
        rules
            .find(|rule| rule.matches(request, &permit.listener) && safe(rule))
            .map(Some)
            .ok_or(Denial::RequestNotAllowed)
    }

    /// Does a rule for the connection name this host and, rather than all ports, this one?
    fn plaintext_named(&self, host: &Host, permit: &Permit) -> bool {
        let port = permit.port();
        port != crate::policy::HTTPS_PORT
            && self.rules.naming(host).any(|grant| {
                matches!(grant.allows, Allows::Connection)
                    && grant.names_ports()
                    && grant.covers(port, &permit.listener)
            })
    }

    /// The first rule that matches, and the first one of the other kind: at most one `AIProviderRoute` and one
    /// `SandboxProxyRule` apply.
    fn granting(
        &self,
        host: &Host,
        permit: &Permit,
        request: &RequestFacts<'_>,
    ) -> (Option<(&Grant, &RequestRule)>, Option<&RequestRule>) {
        let mut matching = self
            .request_rules(host, permit, request)
            .filter(|(_, rule)| rule.matches(request));
        let first = matching.next();
        let second = first.and_then(|(_, one)| {
            matching
                .map(|(_, rule)| rule)
                .find(|rule| rule.provider.is_none() != one.provider.is_none())
        });
        (first, second)
    }

    /// The rules about requests of this host that mean this connection, as written.
    fn request_rules<'g>(
        &'g self,
        host: &Host,
        permit: &Permit,
        request: &RequestFacts<'_>,
    ) -> impl Iterator<Item = (&'g Grant, &'g RequestRule)> {
        self.rules
            .naming(host)
            .filter(|grant| grant.covers(request.port, &permit.listener))
            .filter_map(|grant| match &grant.allows {
                Allows::Requests(rule) => Some((grant, rule)),
                Allows::Connection => None,
            })
    }
}

impl RequestPermit {
    fn add(&mut self, injections: &[Injection], credential: Option<&Arc<str>>) {
        self.injections.extend_from_slice(injections);
        self.credential = match (self.credential.take(), credential) {
            (Some(one), Some(other)) => Some(format!("{one},{other}").into()),
            (one, other) => one.or_else(|| other.cloned()),
        };
    }

    fn narrow(&mut self, methods: &[Method], paths: &[PathPattern]) {
        self.narrow_path |= !paths.is_empty() && !paths.iter().any(PathPattern::is_every_path);
        self.narrow |= self.narrow_path || !methods.is_empty();
    }
}

fn combined(grant: &Grant, first: &RequestRule, second: Option<&RequestRule>) -> RequestPermit {
    let mut granted = RequestPermit {
        rule: grant.rule.clone(),
        provider: None,
        injections: Vec::new(),
        credential: None,
        budget: None,
        narrow: false,
        narrow_path: false,
    };
    for rule in std::iter::once(first).chain(second) {
        granted.provider = granted.provider.or(rule.provider);
        granted.budget = granted.budget.or_else(|| rule.budget.clone());
        granted.add(&rule.injections, rule.credential.as_ref());
        granted.narrow(&rule.methods, &rule.paths);
    }
    granted
}

/// No rule grants this very request: allowed only if the connection was allowed as a whole.
fn untouched(permit: &Permit, narrowing: Option<&HttpRule>) -> Result<RequestPermit, Denial> {
    let open = permit.open.clone().ok_or(Denial::RequestNotAllowed)?;
    let mut granted = RequestPermit {
        rule: narrowing.map_or(open, |rule| rule.rule.clone()),
        provider: None,
        injections: Vec::new(),
        credential: None,
        budget: None,
        narrow: false,
        narrow_path: false,
    };
    if let Some(rule) = narrowing {
        granted.narrow(&rule.methods, rule.path.as_slice());
    }
    Ok(granted)
}
