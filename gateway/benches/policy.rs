//! How long a decision takes, by the number of rules: it should hardly matter. Prints a table; refuses to judge it.

#![allow(clippy::print_stdout, reason = "a benchmark is for reading")]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up has no result"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::policy::{
    Class, Destination, Gateway, Host, Permit, RequestFacts, SourceFile, compile,
};
use http::HeaderMap;

/// Each figure is the best of so many rounds: the others were disturbed by something else.
const ROUNDS: u32 = 7;
/// A round lasts so long at least.
const ROUND: Duration = Duration::from_millis(60);
/// Files of a policy are at most one MiB each.
const DOCUMENTS_IN_A_FILE: usize = 1000;

fn main() {
    println!(
        "{:<34}{:>12}{:>12}{:>12}{:>12}",
        "", "10 rules", "100", "1,000", "10,000"
    );
    let sizes = [10, 100, 1000, 10_000];
    let policies: Vec<Arc<Gateway>> = sizes.iter().map(|size| policy(*size, false)).collect();
    let crowded: Vec<Arc<Gateway>> = sizes.iter().map(|size| policy(*size, true)).collect();
    let each = |ask: &dyn Fn(&Gateway, usize)| -> Vec<Duration> {
        let sized = policies.iter().zip(sizes);
        sized
            .map(|(gateway, size)| time(|| ask(gateway, size)))
            .collect()
    };
    row(
        "connection by name",
        &each(&|gateway, size| {
            black_box(connect(gateway, &name(size / 2)));
        }),
    );
    row(
        "connection denied",
        &each(&|gateway, _| {
            black_box(connect(gateway, "denied.example"));
        }),
    );
    row(
        "name looked up",
        &each(&|gateway, size| {
            black_box(gateway.resolves(&Host::parse(&name(size / 2)).unwrap()));
        }),
    );
    row(
        "request allowed",
        &each(&|gateway, size| {
            let host = name(size / 2);
            let permit = connect(gateway, &host).unwrap();
            assert!(request(gateway, &permit, &host, "/repos/acme/x"));
        }),
    );
    row(
        "request refused",
        &each(&|gateway, size| {
            let host = name(size / 2);
            let permit = connect(gateway, &host).unwrap();
            assert!(!request(gateway, &permit, &host, "/other"));
        }),
    );
    let last = crowded.iter().zip(sizes).map(|(gateway, size)| {
        let path = format!("/path{}/x", size - 1);
        time(|| {
            let permit = connect(gateway, "one.example").unwrap();
            assert!(request(gateway, &permit, "one.example", &path));
        })
    });
    row("request, all rules for one host", &last.collect::<Vec<_>>());
    let compiled = sizes.map(|size| {
        let files = files(size, false);
        let start = Instant::now();
        black_box(compile(&files));
        start.elapsed()
    });
    row("the whole policy compiled", &compiled);
}

fn row(what: &str, figures: &[Duration]) {
    print!("{what:<34}");
    for figure in figures {
        print!("{:>12}", format!("{figure:.1?}"));
    }
    println!();
}

/// The time of one call.
fn time(call: impl Fn()) -> Duration {
    let round = || {
        let start = Instant::now();
        let mut calls = 0_u32;
        while start.elapsed() < ROUND {
            // The clock costs about as much as a decision.
            for _ in 0..16 {
                call();
            }
            calls += 16;
        }
        start.elapsed() / calls
    };
    (0..ROUNDS).map(|_| round()).min().unwrap_or_default()
}

fn connect(gateway: &Gateway, name: &str) -> Option<Permit> {
    let host = Host::parse(name).unwrap();
    let to = Destination {
        address: "203.0.113.1:443".parse().unwrap(),
        host: Some(&host),
        listener: gateway.listener(Class::Tls, 443).unwrap(),
    };
    gateway.authorize(&to).ok()
}

fn request(gateway: &Gateway, permit: &Permit, name: &str, path: &str) -> bool {
    let facts = RequestFacts {
        host: Some(&Host::parse(name).unwrap()),
        port: 443,
        method: "GET",
        path,
        headers: &HeaderMap::new(),
        model: None,
        tls: true,
    };
    gateway.authorize_request(permit, &facts).is_ok()
}

fn name(index: usize) -> String {
    format!("host{index}.example")
}

fn policy(size: usize, crowded: bool) -> Arc<Gateway> {
    let compiled = compile(&files(size, crowded));
    let gateways = compiled.policy.unwrap().gateways;
    gateways.into_values().next().unwrap()
}

/// For each of `size` hosts a rule for the connection and one for its requests; `crowded` makes them one host's.
fn files(size: usize, crowded: bool) -> Vec<SourceFile> {
    let mut texts = vec![
        "apiVersion: postern.dev/v1alpha1\nkind: EgressGateway\nmetadata: {name: g}\nspec:\n  listeners: [{name: tls, protocol: TLS, tls: {mode: Terminate}}]\n"
            .to_owned(),
    ];
    let document = |kind: &str, index: usize, spec: &str| {
        format!(
            "---\napiVersion: postern.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: r{index}}}\nspec:\n  parentRefs: [{{kind: EgressGateway, name: g}}]\n  {spec}\n"
        )
    };
    for index in 0..size {
        if index % DOCUMENTS_IN_A_FILE == 0 {
            texts.push(String::new());
        }
        let (host, path) = if crowded {
            ("one.example".to_owned(), format!("/path{index}"))
        } else {
            (name(index), "/repos/acme".to_owned())
        };
        let l4 = format!(
            "rules: [{{matches: [{{destinationHostnames: [{host}], ports: [{{port: 443}}]}}]}}]"
        );
        let http = format!(
            "hostnames: [{host}]\n  rules: [{{matches: [{{methods: [GET], path: {{type: PathPrefix, value: {path}}}}}]}}]"
        );
        if let Some(text) = texts.last_mut() {
            if !crowded || index == 0 {
                text.push_str(&document("EgressL4Route", index, &l4));
            }
            text.push_str(&document("EgressHTTPRoute", index, &http));
        }
    }
    let file = |(index, text): (usize, String)| SourceFile {
        name: format!("{index}.yaml"),
        text: text.into(),
    };
    texts.into_iter().enumerate().map(file).collect()
}
