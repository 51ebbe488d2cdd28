//! From the documents of a folder to a valid [`Policy`], with every problem on the way.
//!
//! It refuses to know YAML and requests. Whether a secret exists is not asked here either: secrets come
//! from more than one place, and may come later.

mod binding;
mod clash;
mod gateway;
mod grants;
mod injection;
mod link;
mod lint;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::problems::{Added, Place, Problems, Spanned, quote};
use super::resource::{self, ParentKind, Raw, RawAiRoute, RawGateway, RawHttpRoute, RawListener};
use super::rules::{Grant, HttpRule};
use super::{
    Compiled, Listener, MAX_FILE_BYTES, Policy, SecretDocument, SecretRef, SecretUse, SourceFile,
    Span, Unread, yaml,
};

/// Compiles the files of one policy folder, in the order in which they are to be read: rules match in
/// that order. The policy is whole or it is none.
#[must_use]
pub fn compile(files: &[SourceFile]) -> Compiled {
    compile_all(files, &[], None)
}

/// As [`compile`], where some of the files could not be read to their end: each is an error beside those of
/// the others, and nothing is made of it.
#[must_use]
pub fn compile_partly(files: &[SourceFile], unread: &[Unread]) -> Compiled {
    compile_all(files, unread, None)
}

/// As [`compile`], as if the gateway of this name had one more listener.
pub(super) fn compile_as_if(files: &[SourceFile], more: Option<(&str, &Listener)>) -> Compiled {
    compile_all(files, &[], more)
}

fn compile_all(
    files: &[SourceFile],
    unread: &[Unread],
    more: Option<(&str, &Listener)>,
) -> Compiled {
    let mut problems = Problems::new(files);
    let mut documents = read(files, unread, &mut problems);
    for document in &mut documents {
        if let (Raw::Gateway(raw), Some((name, listener))) = (document, more)
            && raw.name.value == name
        {
            raw.listeners.push(RawListener {
                listener: listener.clone(),
                place: raw.name.place,
            });
        }
    }
    report_duplicates(&documents, &mut problems);
    let folder = Folder::new(&documents);
    let attached = folder.attach(&mut problems);
    let bindings = folder.bindings(&mut problems);
    let gateways = folder.build(attached, &mut problems);
    let secret_uses = secret_uses(&documents, &problems);
    let (failed, diagnostics) = problems.finish();
    let policy = (!failed).then(|| Policy {
        gateways,
        secrets: documents.into_iter().filter_map(secret).collect(),
        bindings,
    });
    Compiled {
        policy,
        diagnostics,
        secret_uses,
    }
}

/// The documents by name, as far as others refer to them.
struct Folder<'r> {
    documents: &'r [Raw],
    gateways: BTreeMap<&'r str, &'r RawGateway>,
    ai_routes: BTreeMap<&'r str, &'r RawAiRoute>,
    http_routes: BTreeMap<&'r str, &'r RawHttpRoute>,
}

/// The rules of every gateway, by its name.
type Attachments<'r> = BTreeMap<&'r str, Attached>;

/// The rules of one gateway, in the order written.
#[derive(Default)]
struct Attached {
    grants: Vec<Placed<Grant>>,
    http: Vec<Placed<HttpRule>>,
}

/// A rule, and the places to blame.
struct Placed<T> {
    rule: T,
    /// The name of its document.
    owner: Place,
    /// Its own, where it is one of several.
    place: Place,
}

impl<'r> Folder<'r> {
    fn new(documents: &'r [Raw]) -> Self {
        let mut gateways = BTreeMap::new();
        let mut ai_routes = BTreeMap::new();
        let mut http_routes = BTreeMap::new();
        for document in documents {
            // Of two with one name, the first; the other one has been reported.
            match document {
                Raw::Gateway(raw) => {
                    gateways.entry(raw.name.value.as_str()).or_insert(raw);
                }
                Raw::AiRoute(raw) => {
                    ai_routes.entry(raw.name.value.as_str()).or_insert(raw);
                }
                Raw::HttpRoute(raw) => {
                    http_routes.entry(raw.name.value.as_str()).or_insert(raw);
                }
                _ => {}
            }
        }
        Self {
            documents,
            gateways,
            ai_routes,
            http_routes,
        }
    }

    /// The names of the objects of one kind.
    fn names(&self, kind: ParentKind) -> Vec<&'r str> {
        match kind {
            ParentKind::Gateway => self.gateways.keys().copied().collect(),
            ParentKind::AiRoute => self.ai_routes.keys().copied().collect(),
            ParentKind::HttpRoute => self.http_routes.keys().copied().collect(),
        }
    }

    fn build(
        &self,
        mut attached: Attachments<'r>,
        problems: &mut Problems<'_>,
    ) -> BTreeMap<String, Arc<super::Gateway>> {
        // What cannot be read may have been one.
        if self.gateways.is_empty() && !problems.incomplete {
            problems
                .folder_error("there is no EgressGateway")
                .help("a policy has at least one document of kind EgressGateway");
        }
        let mut built = BTreeMap::new();
        for (name, raw) in &self.gateways {
            let attached = attached.remove(name).unwrap_or_default();
            let gateway = gateway::build(self, raw, attached, problems);
            built.insert((*name).to_owned(), Arc::new(gateway));
        }
        built
    }
}

fn read(files: &[SourceFile], unread: &[Unread], problems: &mut Problems<'_>) -> Vec<Raw> {
    let mut documents = Vec::new();
    let mut namespace = None;
    for (file, source) in files.iter().enumerate() {
        if let Some(unread) = unread.iter().find(|unread| unread.file == file) {
            let end = Span::at_end(&source.text);
            incomplete(problems, (file, end), &unread.found).help(&unread.help);
            continue;
        }
        if source.text.len() > MAX_FILE_BYTES {
            let found = format!("the file has {} bytes", source.text.len());
            incomplete(problems, (file, Span::at_end("")), &found)
                .expected(format!("at most {MAX_FILE_BYTES}"))
                .help("split it into several files");
            continue;
        }
        for root in yaml::load(file, &source.text, problems) {
            warn_of_namespaces(file, &root, &mut namespace, problems);
            documents.extend(resource::read(file, &root, problems));
        }
    }
    documents
}

/// Two namespaces look as if they kept names or rules apart.
fn warn_of_namespaces(
    file: usize,
    root: &yaml::Node,
    first: &mut Option<String>,
    problems: &mut Problems<'_>,
) {
    let Some((found, span)) = resource::namespace(root) else {
        return;
    };
    let first = first.get_or_insert_with(|| found.to_owned());
    if first != found {
        let place = Place {
            file,
            span,
            sensitive: false,
        };
        let message = format!(
            "`metadata.namespace` is {}, and {} elsewhere: here it has no meaning",
            quote(found),
            quote(first)
        );
        problems
            .warning(place, message)
            .help("a policy folder is one namespace: every rule and every name in it counts; make it two folders, or leave the field out");
    }
}

/// The file is not made anything of. What is in it may be a secret's.
fn incomplete<'p>(
    problems: &'p mut Problems<'_>,
    (file, span): (usize, Span),
    found: &str,
) -> Added<'p> {
    problems.incomplete = true;
    let place = Place {
        file,
        span,
        sensitive: true,
    };
    problems.error(place, found)
}

fn report_duplicates(documents: &[Raw], problems: &mut Problems<'_>) {
    let mut seen: HashMap<(&str, &str), Place> = HashMap::new();
    for document in documents {
        let (kind, name) = document.identity();
        match seen.get(&(kind, name.value.as_str())) {
            Some(first) => {
                let first = problems.locate(*first);
                problems
                    .error(
                        name.place,
                        format!("a second {kind} named `{}`", name.value),
                    )
                    .help(format!("the first one is at {first}"));
            }
            None => {
                seen.insert((kind, &name.value), name.place);
            }
        }
    }
}

/// Where the documents use which secret, each place once for each value.
fn secret_uses(documents: &[Raw], problems: &Problems<'_>) -> Vec<SecretUse> {
    let mut uses = Vec::new();
    let mut add = |secret: &SecretRef, place: Place, at_start: bool| {
        uses.push(SecretUse {
            secret: secret.clone(),
            file: problems.file(place).to_owned(),
            span: place.span,
            at_start,
            sensitive: place.sensitive,
        });
    };
    let mut add_all = |used: &[Spanned<SecretRef>], at_start: bool| {
        for secret in used {
            add(&secret.value, secret.place, at_start);
        }
    };
    for document in documents {
        match document {
            Raw::Gateway(raw) => add_all(&raw.secrets, true),
            Raw::CredentialPolicy(raw) => add_all(&raw.secrets, false),
            Raw::ProxyRule(raw) => {
                for header in &raw.headers {
                    let template = &header.template;
                    let place = template.place;
                    let refs = template.value.secret_refs().cloned();
                    let refs: Vec<_> = refs.map(|value| Spanned { value, place }).collect();
                    add_all(&refs, false);
                }
            }
            Raw::L4Route(_)
            | Raw::HttpRoute(_)
            | Raw::AiRoute(_)
            | Raw::Binding(_)
            | Raw::Secret(_) => {}
        }
    }
    uses.dedup();
    uses
}

fn secret(document: Raw) -> Option<SecretDocument> {
    match document {
        Raw::Secret(raw) => Some(SecretDocument {
            name: raw.name.value,
            values: raw.values,
        }),
        _ => None,
    }
}
