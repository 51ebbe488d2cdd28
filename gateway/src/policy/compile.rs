//! From the documents of a folder to a valid [`Policy`], with every problem on the way.
//!
//! It refuses to know YAML and requests. Whether a secret exists is not asked here either: secrets come
//! from more than one place, and may come later.

mod gateway;
mod injection;
mod link;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::problems::{Place, Problems};
use super::resource::{self, Raw, RawAiRoute, RawGateway, RawListener};
use super::rules::Grant;
use super::{Compiled, Listener, MAX_FILE_BYTES, Policy, SecretDocument, SourceFile, Span, yaml};

/// Compiles the files of one policy folder, in the order in which they are to be read: rules match in
/// that order. The policy is whole or it is none.
#[must_use]
pub fn compile(files: &[SourceFile]) -> Compiled {
    compile_with(files, None)
}

/// As [`compile`], as if the gateway of this name had one more listener.
pub(super) fn compile_with(files: &[SourceFile], more: Option<(&str, &Listener)>) -> Compiled {
    let mut problems = Problems::new(files);
    let mut documents = read(files, &mut problems);
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
    let grants = folder.grants(&mut problems);
    let gateways = folder.build(grants, &mut problems);
    let (failed, diagnostics) = problems.finish();
    let policy = (!failed).then(|| Policy {
        gateways,
        secrets: documents.into_iter().filter_map(secret).collect(),
    });
    Compiled {
        policy,
        diagnostics,
    }
}

/// The documents by name, as far as others refer to them.
struct Folder<'r> {
    documents: &'r [Raw],
    gateways: BTreeMap<&'r str, &'r RawGateway>,
    ai_routes: BTreeMap<&'r str, &'r RawAiRoute>,
}

/// The grants of every gateway, by its name, in the order written.
type Grants<'r> = BTreeMap<&'r str, Vec<Attached>>;

/// A grant, and the place to blame if it clashes with another.
struct Attached {
    grant: Grant,
    place: Place,
}

impl<'r> Folder<'r> {
    fn new(documents: &'r [Raw]) -> Self {
        let mut gateways = BTreeMap::new();
        let mut ai_routes = BTreeMap::new();
        for document in documents {
            // Of two with one name, the first; the other one has been reported.
            match document {
                Raw::Gateway(raw) => {
                    gateways.entry(raw.name.value.as_str()).or_insert(raw);
                }
                Raw::AiRoute(raw) => {
                    ai_routes.entry(raw.name.value.as_str()).or_insert(raw);
                }
                _ => {}
            }
        }
        Self {
            documents,
            gateways,
            ai_routes,
        }
    }

    fn build(
        &self,
        mut grants: Grants<'r>,
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
            let grants = grants.remove(name).unwrap_or_default();
            let gateway = gateway::build(raw, grants, problems);
            built.insert((*name).to_owned(), Arc::new(gateway));
        }
        built
    }
}

fn read(files: &[SourceFile], problems: &mut Problems<'_>) -> Vec<Raw> {
    let mut documents = Vec::new();
    for (file, source) in files.iter().enumerate() {
        if source.text.len() > MAX_FILE_BYTES {
            let span = Span {
                start: 0,
                end: 0,
                line: 1,
                column: 1,
            };
            let place = Place {
                file,
                span,
                sensitive: true,
            };
            problems.incomplete = true;
            problems
                .error(place, format!("the file has {} bytes", source.text.len()))
                .expected(format!("at most {MAX_FILE_BYTES}"))
                .help("split it into several files");
            continue;
        }
        for root in yaml::load(file, &source.text, problems) {
            documents.extend(resource::read(file, &root, problems));
        }
    }
    documents
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

fn secret(document: Raw) -> Option<SecretDocument> {
    match document {
        Raw::Secret(raw) => Some(SecretDocument {
            name: raw.name.value,
            values: raw.values,
        }),
        _ => None,
    }
}
